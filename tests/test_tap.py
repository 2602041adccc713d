"""argv -> settings; what is wrong ends the process plainly."""

import io
import os
from unittest import mock

import msgspec
from twisted.application.service import IService
from twisted.python import usage
from twisted.trial.unittest import SynchronousTestCase
from zope.interface.verify import verifyObject

from psubd import compose, tap
from psubd.config import WORKER
from psubd.daemon import Daemon
from psubd.errors import ConfigError
from psubd.workers import Supervisor


class OptionsTests(SynchronousTestCase):
    def parse(self, *words: str) -> tap.Options:
        options = tap.Options()
        with mock.patch.dict(os.environ, clear=True):
            options.parseOptions(["--state", "/somewhere", *words])
        return options

    def refused(self, *words: str) -> list[str]:
        """What a command line with mistakes says on stderr."""
        with mock.patch("sys.stderr", io.StringIO()) as stderr:
            ended = self.assertRaises(SystemExit, self.parse, *words)
        self.assertEqual(ended.code, 1)
        return stderr.getvalue().splitlines()

    def test_defaults(self) -> None:
        """What is not named is not given: the file may say it."""
        options = self.parse()
        self.assertEqual(options.given(), {"state": "/somewhere"})
        self.assertEqual(options.settings.listen, ("tcp:9090",))

    def test_all(self) -> None:
        """Every option reaches its setting; those that may be repeated gather."""
        options = self.parse("--listen=tcp:1", "--listen", "tcp:2", "--manager=unix:/m", "--mode=pub", "--workers=1", "--storage=memory:", "--demo")
        got = options.settings
        self.assertEqual((got.state, got.listen, got.manager), ("/somewhere", ("tcp:1", "tcp:2"), ("unix:/m",)))
        self.assertEqual((got.mode, got.workers, got.storage, got.registry, got.demo), ("pub", 1, "memory:", "sqlite:", True))

    def test_mistakes(self) -> None:
        """One line on stderr for each, with status 1."""
        lines = self.refused("--mode=both", "--workers=x", "--listen=nonsense:1", "--peer-address=host:1")
        self.assertEqual([line.split(":")[1] for line in lines], [" --mode", " --workers", " --listen", " --peer-address"])

    def test_usage(self) -> None:
        """An unknown option, one without its value and a stray word are told the same way."""
        for words, said in ((["--nonsense"], "nonsense"), (["--config"], "config"), (["serve"], "'serve' is not an option")):
            (line,) = self.refused(*words)
            self.assertIn(said, line)

    def test_help(self) -> None:
        """--help lists the schemes of the plugins that were found."""
        said = str(tap.Options())
        for factory in (*compose.schemes().storages.values(), *compose.schemes().registries.values()):
            self.assertIn(factory.usage, said)

    def test_help_with_broken_plugins(self) -> None:
        """It helps all the same where plugins disagree."""
        with mock.patch("psubd.compose.schemes", side_effect=ConfigError(["two of them"])):
            self.assertIn("two of them", str(tap.Options()))

    def test_usage_error_is_twisteds(self) -> None:
        """postOptions refuses as twistd knows it."""
        options = tap.Options()
        options["mode"] = "both"
        self.assertRaises(usage.UsageError, options.postOptions)


class ServiceTests(SynchronousTestCase):
    def test_make(self) -> None:
        """A service that is not started: nothing was opened."""
        options = tap.Options()
        options.parseOptions(["--state", "/nowhere/at/all"])
        service = tap.makeService(options)
        self.assertTrue(verifyObject(IService, service))
        self.assertFalse(service.running)

    def test_workers(self) -> None:
        """Several workers: what is started starts them; one of them is a daemon, that follows the one that started it."""
        common = ["--state", "/nowhere/at/all", "--registry=zk://127.0.0.1:1", "--storage=kafka://127.0.0.1:1", "--peer=tcp:0:interface=127.0.0.1"]
        options = tap.Options()
        options.parseOptions([*common, "--workers=2", "--config", os.devnull])
        service = tap.makeService(options)
        self.assertIsInstance(service, Supervisor)
        self.assertFalse(service.running)
        ours = service.command[service.command.index("psubd") + 1 :]
        self.assertEqual(ours, [*common, "--workers=2", "--config", os.devnull, "--state", "/nowhere/at/all", "--config", os.devnull])
        told = msgspec.json.encode(options.settings.crew.worker(1)).decode()
        with mock.patch.dict(os.environ, {WORKER: told}), mock.patch("psubd.worker.follow") as follow:
            options = tap.Options()
            options.parseOptions(ours)
            service = tap.makeService(options)
        self.assertIsInstance(service, Daemon)
        self.assertEqual(service.folder.path, "/nowhere/at/all/worker-1")
        self.assertEqual(follow.call_count, 1)
