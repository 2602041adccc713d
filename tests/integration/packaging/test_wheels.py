"""psubd as others get it: the built wheel in a fresh environment, alone and with a third party's beside it.

Needs the package registry (or pip's cache of it), for the versions in requirements.lock.
"""

import shutil
import subprocess
import sys
import tempfile
import zipfile
from pathlib import Path
from typing import ClassVar

from twisted.trial.unittest import SynchronousTestCase

from psubd.testing.daemon import Daemon, bind, make_topic, register
from tests.integration.process.case import with_pytest

ROOT = Path(__file__).resolve().parents[3]
THIRD_PARTY = Path(__file__).resolve().parent / "thirdparty"


def run(*command: object, cwd: Path | None = None) -> str:
    """What the command says. :raises AssertionError: with that, where it fails."""
    done = subprocess.run([str(word) for word in command], cwd=cwd, capture_output=True, text=True, timeout=240)
    assert done.returncode == 0, f"{command}: {done.returncode}\n{done.stdout}{done.stderr}"
    return done.stdout + done.stderr


def build(source: Path, out: Path) -> Path:
    """The wheel of ``source``, built from a copy, so that nothing is left in the tree."""
    with tempfile.TemporaryDirectory() as copied:
        tree = Path(copied) / "tree"
        shutil.copytree(source, tree, ignore=shutil.ignore_patterns(".*", "build", "dist", "__pycache__", "psubd-state", "_trial_temp*"))
        (tree / "psubd" / "plugins" / "dropin.cache").write_bytes(b"of this machine")
        (tree / "twisted" / "plugins").mkdir(parents=True, exist_ok=True)
        (tree / "twisted" / "plugins" / "dropin.cache").write_bytes(b"of this machine")
        run(sys.executable, "-m", "build", "--wheel", "--no-isolation", "--outdir", out, tree)
    (wheel,) = out.glob("*.whl")
    return wheel


@with_pytest
class WheelTests(SynchronousTestCase):
    """One environment for all: it takes a while to make."""

    folder: ClassVar[Path]
    wheel: ClassVar[Path]
    bin: ClassVar[Path]

    @classmethod
    def setUpClass(cls) -> None:
        cls.folder = Path(tempfile.mkdtemp(prefix="psubd-wheels-"))
        cls.addClassCleanup(shutil.rmtree, cls.folder)
        cls.wheel = build(ROOT, cls.folder / "psubd")
        run(sys.executable, "-m", "venv", cls.folder / "venv")
        cls.bin = cls.folder / "venv" / "bin"
        run(cls.bin / "pip", "install", "--disable-pip-version-check", "--require-hashes", "-r", ROOT / "requirements.lock")
        run(cls.bin / "pip", "install", "--disable-pip-version-check", "--no-deps", "--no-index", cls.wheel)

    def twistd(self, *options: str) -> str:
        """What twistd of that environment says, away from the source tree."""
        return run(self.bin / "twistd", *options, cwd=self.folder)

    def test_holds(self) -> None:
        """The wheel has the plugin and the package, and nothing that would overwrite Twisted's own or another's: no ``__init__`` of twisted,
        no cache of plugins."""
        names = zipfile.ZipFile(self.wheel).namelist()
        self.assertIn("twisted/plugins/psubd_plugin.py", names)
        self.assertIn("psubd/py.typed", names)
        self.assertIn("psubd/plugins/psubd_storages.py", names)
        self.assertEqual([name for name in names if name.startswith("twisted/") and name != "twisted/plugins/psubd_plugin.py"], [])
        self.assertEqual([name for name in names if name.endswith("dropin.cache") or name.startswith(("tests", "etc", "docs", "bench"))], [])

    def test_listed(self) -> None:
        """``twistd --help`` of an environment that has only the wheel and the locked versions lists psubd; psubd's lists its schemes."""
        self.assertIn("psubd", self.twistd("--help"))
        said = self.twistd("psubd", "--help")
        for word in ("sqlite:", "memory:", "--listen", "--manager", "--demo", "--check"):
            self.assertIn(word, said)

    def test_serves(self) -> None:
        """It starts from the wheel, publishes and reads."""
        self.publish_and_read("sqlite:")

    def test_third_party(self) -> None:
        """A third party's wheel beside it adds a scheme, which --help shows and which works; its settings are its own to judge."""
        wheel = build(THIRD_PARTY, self.folder / "acme")
        pip = self.bin / "pip"
        run(pip, "install", "--disable-pip-version-check", "--no-deps", "--no-index", wheel)
        self.addCleanup(run, pip, "uninstall", "-y", "--disable-pip-version-check", "acme-psubd-storage")
        self.assertIn("acme:  a log of Acme's", self.twistd("psubd", "--help"))
        file = self.folder / "acme.toml"
        file.write_text('[storage.acme]\ngreeting = "hello from acme"\n')
        status = self.publish_and_read("acme:", "--config", str(file))
        self.assertEqual(status["storage"]["status"], {"kind": "acme", "greeting": "hello from acme"})
        file.write_text("[storage.acme]\ncolour = 1\n")
        done = subprocess.run(
            [self.bin / "twistd", "psubd", "--storage", "acme:x", "--config", file], capture_output=True, text=True, cwd=self.folder
        )
        self.assertEqual(done.returncode, 1)
        self.assertEqual(
            done.stderr.splitlines(),
            [
                "psubd: storage: 'acme:x': acme: takes nothing behind the colon",
                "psubd: storage.acme: colour: there is no such setting; there is greeting",
            ],
        )

    def publish_and_read(self, storage: str, *options: str) -> dict[str, dict[str, object]]:
        """A message goes through the daemon of that environment. Its status."""
        state = tempfile.mkdtemp(dir=self.folder)
        with Daemon(state, ["--storage", storage, *options], twistd=[str(self.bin / "twistd")]) as daemon:
            manager = daemon.manager()
            shop = register(manager, "shop")
            make_topic(manager, "orders", "shop")
            bind(manager, "shop", "orders", pub=True, sub=True, start="earliest")
            sent = daemon.data(**shop.publish).request("POST", "/v1/pub/orders", b"one", {"content-type": "text/plain"})
            self.assertEqual((sent.status, sent.json["offset"]), (200, 0))
            got = daemon.data(**shop.subscribe).request("GET", "/v1/sub?timeout=10000")
            self.assertEqual([message["value"] for message in got.json["messages"]], ["one"])
            return manager.request("GET", "/api/v1/status").json  # type: ignore[no-any-return]
