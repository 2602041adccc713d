"""This node's id."""

import os
import stat

from twisted.trial.unittest import SynchronousTestCase

from psubd.errors import ConfigError
from psubd.registry.zookeeper.identity import FILE, ID, node_id


class Identity(SynchronousTestCase):
    def setUp(self) -> None:
        self.folder = self.mktemp()
        os.makedirs(self.folder)

    def test_made_once(self) -> None:
        """It stays, for nobody else to write; another folder has another one."""
        first = node_id(self.folder)
        self.assertIsNotNone(ID.fullmatch(first))
        self.assertEqual(node_id(self.folder), first)
        self.assertEqual(os.listdir(self.folder), [FILE])
        self.assertEqual(stat.S_IMODE(os.stat(os.path.join(self.folder, FILE)).st_mode), 0o600)
        other = self.mktemp()
        os.makedirs(other)
        self.assertNotEqual(node_id(other), first)

    def test_an_operators(self) -> None:
        """A name that somebody wrote there is taken."""
        with open(os.path.join(self.folder, FILE), "w") as file:
            file.write("node-a\n")
        self.assertEqual(node_id(self.folder), "node-a")

    def test_none(self) -> None:
        """What cannot be an id is refused, and stays."""
        for text in ("", "a/b", "a b", "x" * 101):
            with open(os.path.join(self.folder, FILE), "w") as file:
                file.write(text)
            with self.assertRaises(ConfigError):
                node_id(self.folder)

    def test_no_folder(self) -> None:
        """It is told in plain words."""
        with self.assertRaises(ConfigError) as refused:
            node_id(os.path.join(self.folder, "absent"))
        self.assertIn("No such file", str(refused.exception))
