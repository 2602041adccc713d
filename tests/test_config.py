"""file + environment + command line -> one Config, every mistake at once."""

import os
import re
import subprocess
import sys
import tempfile
import textwrap
import tomllib
from collections.abc import Mapping
from pathlib import Path
from typing import Any
from unittest import mock

import msgspec
from twisted.internet.endpoints import serverFromString
from twisted.internet.testing import MemoryReactor
from twisted.trial.unittest import SynchronousTestCase
from zope.interface import implementer

from psubd import compose, config, tap
from psubd.config import Config, Listener, PeerJudge, Schemes, load, redact
from psubd.errors import ConfigError
from psubd.interfaces import IRegistryFactory, IStorageFactory
from psubd.registry.zookeeper.settings import ZooKeeperSettings
from psubd.storage.kafka.settings import KafkaSettings, RdKafkaSettings
from psubd.storage.memory import MemorySettings
from psubd.storage.sqlite.settings import SqliteSettings

ROOT = Path(__file__).resolve().parent.parent


@implementer(IStorageFactory, IRegistryFactory)
class Factory:
    """A plugin of the test's: finds fault with URLs that hold ``bad``, and with settings that it does not know."""

    def __init__(self, scheme: str, shared: bool = False) -> None:
        self.scheme = scheme
        self.usage = f"{scheme}: of the tests"
        self.shared = shared

    def check(self, url: str, settings: Mapping[str, Any]) -> list[str]:
        found = [f"{name} is not a setting of {self.scheme}:" for name in settings if name != "known"]
        return [*found, "the URL is bad"] if "bad" in url else found

    def build(self, url: str, environment: Any) -> Any:
        raise AssertionError("judging a configuration builds nothing")


SCHEMES = Schemes(
    storages={scheme: Factory(scheme, shared) for scheme, shared in (("sqlite", False), ("memory", False), ("common", True))},
    registries={scheme: Factory(scheme, shared) for scheme, shared in (("sqlite", False), ("common", True))},
)


class ConfigCase(SynchronousTestCase):
    """:ivar judge: finds fault with peers' settings."""

    judge: PeerJudge = staticmethod(lambda peer, address, tls: [])

    def load(self, text: str | None = None, environ: Mapping[str, str] | None = None, **argv: Any) -> Config:
        self.path = None
        if text is not None:
            handle, self.path = tempfile.mkstemp(suffix=".toml")
            self.addCleanup(os.unlink, self.path)
            with os.fdopen(handle, "w") as file:
                file.write(textwrap.dedent(text))
        return load(argv, self.path, environ or {}, SCHEMES, lambda text: serverFromString(MemoryReactor(), text), self.judge)

    def mistakes(self, text: str | None = None, environ: Mapping[str, str] | None = None, **argv: Any) -> list[str]:
        refused = self.assertRaises(ConfigError, self.load, text, environ, **argv)
        return [mistake.replace(self.path, "FILE") if self.path else mistake for mistake in refused.mistakes]


class SourcesTests(ConfigCase):
    def test_defaults(self) -> None:
        """Nothing said: the contract's defaults."""
        got = self.load(state="/somewhere")
        self.assertEqual(got, Config(state="/somewhere"))
        self.assertEqual((got.storage, got.registry, got.mode, got.workers), ("sqlite:", "sqlite:", "pubsub", 1))
        self.assertEqual((got.listen, got.manager), (("tcp:9090",), ("tcp:9091:interface=127.0.0.1",)))

    def test_precedence(self) -> None:
        """The command line wins over the environment, the environment over the file, the file over the defaults."""
        text = 'storage = "memory:file"\nmode = "pub"\n'
        environ = {"PSUBD_STORAGE": "memory:environment"}
        self.assertEqual(self.load(text).storage, "memory:file")
        self.assertEqual(self.load(text, environ).storage, "memory:environment")
        got = self.load(text, environ, storage="memory:argv")
        self.assertEqual((got.storage, got.mode), ("memory:argv", "pub"))

    def test_lists_replace(self) -> None:
        """Endpoints on the command line replace those of the file; they do not add to them."""
        got = self.load('listen = ["tcp:1", "tcp:2"]\n', listen=["tcp:3"])
        self.assertEqual(got.listen, ("tcp:3",))

    def test_tables(self) -> None:
        """The URL stands in the [storage] table beside the tables of the schemes."""
        got = self.load('[storage]\nurl = "memory:"\n[storage.memory]\nknown = 3\n')
        self.assertEqual((got.storage, dict(got.storage_tables)), ("memory:", {"memory": {"known": 3}}))

    def test_state_is_absolute(self) -> None:
        """A daemon changes its folder: a relative one is taken from where the command was typed."""
        self.assertEqual(self.load(state="here").state, os.path.abspath("here"))

    def test_state_default(self) -> None:
        """/var/lib/psubd where it can be written or made, else psubd-state in the present folder."""
        for access, expected in ((True, "/var/lib/psubd"), (False, os.path.abspath("psubd-state"))):
            with mock.patch.object(config.os, "access", return_value=access):
                self.assertEqual(self.load().state, expected)

    def test_admin_token(self) -> None:
        """The first admin token comes from the environment, and is shown nowhere."""
        got = self.load(environ={"PSUBD_ADMIN_TOKEN": "t0psecret-t0psecret"})
        self.assertEqual(got.admin_token, "t0psecret-t0psecret")
        self.assertNotIn("t0psecret-t0psecret", repr(got) + repr(got.view()))


class MistakesTests(ConfigCase):
    def test_all_at_once(self) -> None:
        """Each mistake is a line that names the setting and says what to do, and all of them are told."""
        text = """
            wriet_timeout_ms = 1
            commit_interval_ms = "often"
            max_message_bytes = 3
            mode = "both"
            demo = 1
            listen = "tcp:9090"
            manager = ["tcp:nope"]
            [storage]
            url = "kafka:"
            color = "red"
            [storage.sqlite]
            unknown = 1
        """
        found = self.mistakes(text, workers="two", peer=["tcp:9092"])
        expected = [
            "FILE: wriet_timeout_ms is not a setting; did you mean write_timeout_ms?",
            "FILE: commit_interval_ms: write a whole number from 1 to 60000",
            "FILE: max_message_bytes: write a whole number from 1024 to 67108864",
            "FILE: mode: write one of pubsub, pub, sub",
            "FILE: demo: write true or false",
            'FILE: listen: write a list of strings, as ["tcp:9090"]',
            "FILE: storage.color is not a setting; [storage] takes url, and a table for each scheme as [storage.sqlite]",
            "--workers: write a whole number from 1 to 1024",
            "FILE: storage.url: 'kafka:' begins with no known scheme; the schemes are common:, memory:, sqlite:",
            "--peer: the registry sqlite: is of one node, which has no peers; leave it out",
        ]
        for line in expected:
            self.assertIn(line, found)
        (endpoint,) = (line for line in found if "tcp:nope" in line and "not an endpoint" in line)
        self.assertTrue(endpoint.startswith("FILE: manager: 'tcp:nope' is not an endpoint that can be used"))

    def test_plugin_judges(self) -> None:
        """What only the scheme's plugin knows is told with the rest."""
        found = self.mistakes('[registry]\nurl = "sqlite:bad"\n[registry.sqlite]\nspeed = 1\n')
        self.assertEqual(found, ["FILE: registry.url: speed is not a setting of sqlite:", "FILE: registry.url: the URL is bad"])

    def test_table_without_plugin(self) -> None:
        """Settings for a scheme that nobody provides would be ignored: refused."""
        (line,) = self.mistakes("[storage.sqllite]\nknown = 1\n")
        self.assertEqual(line, "[storage.sqllite]: no plugin provides sqllite:; the schemes are common:, memory:, sqlite:")

    def test_not_toml(self) -> None:
        """A file that is not TOML is told with the place; one that is not there with its name."""
        (line,) = self.mistakes("listen = \n")
        self.assertIn("FILE: not TOML: Invalid value (at line 1", line)
        refused = self.assertRaises(ConfigError, load, {}, "/no/such", {}, SCHEMES, lambda text: None)
        self.assertEqual(refused.mistakes, ["--config /no/such: cannot be read: No such file or directory"])

    MANY = {"registry": "common:", "storage": "common:", "peer": ["tcp:9192:interface=127.0.0.1"]}

    def test_workers(self) -> None:
        """Several are several nodes: with a registry of one node they are refused, with what to do."""
        (line,) = self.mistakes(workers="2")
        self.assertTrue(line.startswith("--workers: the registry sqlite: is of one process, and so is an embedded storage; write 1, or"), line)
        self.assertEqual(self.load(workers="2", **self.MANY).workers, 2)
        self.assertEqual(self.load(workers="1").workers, 1)

    def test_ports_of_workers(self) -> None:
        """Endpoints that cannot be shared or counted from, ports that would meet and ports that are none: each is told under its own name."""
        found = self.mistakes('manager = ["unix:/run/m"]\n', workers="2", listen=["unix:/run/d", "haproxy:unix:/run/e"], **self.MANY)
        whose = ["--listen: 'unix:/run/d': the", "--listen: 'haproxy:unix:/run/e': the", "FILE: manager: 'unix:/run/m': each"]
        self.assertEqual([line.partition(" worker")[0] for line in found], whose)
        (line,) = self.mistakes("workers = 3\n", manager=["tcp:9190:interface=127.0.0.1"], **self.MANY)
        self.assertTrue(line.startswith("FILE: workers: the manager port of worker 2 would be 9192, which is the peer port of worker 0 too"), line)
        (line,) = self.mistakes(workers="2", manager=["tcp:65535:interface=127.0.0.1"], **self.MANY)
        self.assertTrue(line.startswith("--workers: the manager port of worker 1 would be 65536"), line)

    def test_a_worker(self) -> None:
        """What the process that started it says wins over what was given, but for what is judged; the demonstration is the first one's."""
        given = self.load(workers="2", demo=True, **self.MANY)
        for number in range(2):
            told = given.crew.worker(number, ["tcp:4711"])
            got = self.load(environ={config.WORKER: msgspec.json.encode(told).decode()}, workers="2", demo=True, **self.MANY)
            self.assertEqual((got.worker, got.listen, got.peer, got.state), (told, ("tcp:4711",), told.peer, f"{given.state}/worker-{number}"))
            self.assertEqual((got.folder, got.demo), (given.state, number == 0))
        for nonsense in ("1", "{", '{"number": 1}'):
            (line,) = self.mistakes(environ={config.WORKER: nonsense})
            self.assertTrue(line.startswith("PSUBD_WORKER: psubd sets it"), line)

    def test_peers(self) -> None:
        """Peers are of a registry of many nodes."""
        found = self.mistakes('[peer_tls]\nkey = "/k.pem"\n', peer=["tcp:9092"], peer_address="host:9092")
        self.assertEqual(len(found), 3)
        self.assertIn("--peer-address: the registry sqlite: is of one node", found[1])
        self.assertIn("FILE: peer_tls: the registry sqlite: is of one node", found[2])

    def test_no_peer_port(self) -> None:
        """A registry of many nodes needs one: the nodes could not reach each other."""
        (line,) = self.mistakes(registry="common:", storage="common:")
        self.assertIn("peer: the nodes of a registry common: talk to each other", line)

    def test_peers_are_judged(self) -> None:
        """What only the peers' room knows is told under the name that the setting was given by, with the rest."""
        self.judge = lambda peer, address, tls: [f"peer: {peer[0]} is odd", "peer_address: so is this", f"peer_tls: {tls.key}"]
        text = 'peer_address = "host:9092"\n[peer_tls]\ncertificate = "/c.pem"\nkey = "/k.pem"\nauthority = "/a.pem"\n'
        found = self.mistakes(text, registry="common:", storage="common:", peer=["tcp:9092"], workers="2")
        self.assertEqual(found[1:], ["--peer: tcp:9092 is odd", "FILE: peer_address: so is this", "FILE: peer_tls: /k.pem"])
        self.assertIn("--workers", found[0])

    def test_peer_tls(self) -> None:
        """The table takes three files, all or none, and nothing else."""
        many = {"registry": "common:", "storage": "common:", "peer": ["tcp:9092:interface=127.0.0.1"]}
        self.assertIn("FILE: peer_tls: certificate, authority: missing", self.mistakes('[peer_tls]\nkey = "/k.pem"\n', **many)[0])
        for wrong in ('[peer_tls]\nkay = "/k.pem"\n', "[peer_tls]\nkey = 1\n", 'peer_tls = "/k.pem"\n'):
            self.assertEqual(
                self.mistakes(wrong, **many), ["FILE: peer_tls: write a table with certificate, key, authority, each the path of a PEM file"]
            )
        self.assertEqual(self.load(**many).peer_tls, config.PeerTls())
        shown = self.load('[peer_tls]\ncertificate = "/c.pem"\nkey = "/k.pem"\nauthority = "/a.pem"\n', **many).view()["peer_tls"]
        self.assertEqual(shown, {"certificate": "/c.pem", "key": "/k.pem", "authority": "/a.pem"})

    def test_each_a_log_of_its_own(self) -> None:
        """A registry of many nodes with a storage of one node is refused."""
        (line,) = self.mistakes(registry="common:", storage="sqlite:", peer=["tcp:9092:interface=127.0.0.1"])
        self.assertIn("--storage: each node would have a log of its own", line)
        self.load(registry="common:", storage="common:", peer=["tcp:9092:interface=127.0.0.1"])

    def test_ports(self) -> None:
        """A port is 0 to 65535; at least one endpoint is needed."""
        self.assertEqual(self.mistakes(listen=["tcp:65536"]), ["--listen: 'tcp:65536': a port is 0 to 65535"])
        self.assertEqual(self.mistakes("listen = []\n"), ["FILE: listen: name at least one endpoint, as tcp:9090"])

    def test_ssl_files(self) -> None:
        """A certificate that is not there is told before anything starts."""
        (line,) = self.mistakes(listen=["ssl:443:privateKey=/no/such.pem"])
        self.assertIn("No such file", line)

    def test_admin_token(self) -> None:
        """A token that no header can carry, or an empty one, is refused; its text is not told."""
        for token in ("", "short", "with blank and long enough", "caf\u00e9\u2603caf\u00e9\u2603caf\u00e9\u2603"):
            (line,) = self.mistakes(environ={"PSUBD_ADMIN_TOKEN": token})
            self.assertEqual(line, "PSUBD_ADMIN_TOKEN: write 16 to 200 printable ASCII characters without blanks, or leave it unset")


class CredentialsTests(ConfigCase):
    URL = "common://user:hunter2@host:9092,host2?sasl_password=hunter3&acks=1"

    def test_refused_on_the_command_line(self) -> None:
        """Everybody on the host can read a command line."""
        for name in ("storage", "registry"):
            found = self.mistakes(**{"storage": "common:", "peer": ["tcp:9092"] if name == "registry" else [], name: self.URL})
            self.assertEqual(len(found), 1)
            self.assertIn(f"--{name}: holds credentials", found[0])
            self.assertIn(f"PSUBD_{name.upper()}", found[0])

    def test_taken_from_file_and_environment(self) -> None:
        """The file and the environment may hold them."""
        self.assertEqual(self.load(f'storage = "{self.URL}"\n').storage, self.URL)
        self.assertEqual(self.load(environ={"PSUBD_STORAGE": self.URL}).storage, self.URL)

    def test_never_shown(self) -> None:
        """Neither in a view, nor in a repr, nor in a mistake."""
        text = f'[storage]\nurl = "{self.URL}"\n[storage.common]\nknown = {{ ssl_password = "hunter4", depth = 1 }}\n'
        got = self.load(text)
        self.assertEqual(got.view()["storage"], "common://***@host:9092,host2?sasl_password=***&acks=1")
        self.assertEqual(got.view()["storage_tables"], {"common": {"known": {"ssl_password": "***", "depth": 1}}})
        found = "".join(self.mistakes(environ={"PSUBD_STORAGE": self.URL.replace("common", "nope")}))
        self.assertNotIn("hunter", repr(got) + repr(got.view()) + found)

    def test_redact(self) -> None:
        """What may be a credential goes, also where it holds ``@``, ``/``, ``:`` or ``,``; the rest stays."""
        for url, expected in (
            ("sqlite:", "sqlite:"),
            ("kafka://a:1,b:2", "kafka://a:1,b:2"),
            ("kafka://u:p@a:1,u:p@b:2", "kafka://***@b:2"),
            ("kafka://u:p@ss/w,rd@a:1", "kafka://***@a:1"),
            ("zk://a:1/chroot?auth=x&timeout=3", "zk://a:1/chroot?auth=***&timeout=3"),
        ):
            self.assertEqual(redact(url), expected)


class ExposureTests(ConfigCase):
    def test_plain_off_loopback(self) -> None:
        """Tokens do not cross a network in the clear unless somebody said so."""
        for description in ("tcp:9091", "tcp:9091:interface=10.0.0.1", "tcp:9091:0.0.0.0", r"tcp6:9091:interface=\:\:", "haproxy:tcp:9091"):
            (line,) = self.mistakes(manager=[description])
            self.assertIn("manager_plain = true", line)
            self.load("manager_plain = true\n", manager=[description])

    def test_loopback_and_unix(self) -> None:
        """What only this host reaches needs nothing more."""
        for description in ("tcp:0:interface=127.0.0.1", "tcp:0:127.1.2.3", r"tcp6:0:interface=\:\:1", "tcp:0:interface=localhost", "unix:/tmp/x"):
            self.load(manager=[description])

    def test_listener(self) -> None:
        """The description's own escapes and both of its forms are read."""
        self.assertEqual(Listener.of(r"tcp6:80:interface=\:\:1"), Listener(80, False, True))
        self.assertEqual(Listener.of("tcp:port=80:interface=127.0.0.1"), Listener(80, False, True))
        self.assertEqual(Listener.of("haproxy:ssl:443"), Listener(443, False, False))
        self.assertEqual(Listener.of("systemd:domain=INET:index=0"), Listener(None, True, False))


class ConfluentTests(ConfigCase):
    LOOPBACK = {"listen": ["tcp:0:interface=127.0.0.1"]}

    def test_strangers_off_loopback(self) -> None:
        """Nobody is let in without credentials from other hosts unless somebody said so, TLS or not."""
        self.load('anonymous = "shop"\n', **self.LOOPBACK)
        for description in ("tcp:9090", "tcp:9090:interface=10.0.0.1", "haproxy:tcp:9090"):
            (line,) = self.mistakes('anonymous = "shop"\n', listen=[description])
            self.assertIn("anonymous_anywhere = true", line)
            self.load('anonymous = "shop"\nanonymous_anywhere = true\n', listen=[description])

    def test_stranger_is_an_application(self) -> None:
        """What no application can be called is told at once, and so is leave that is given to nobody."""
        (line,) = self.mistakes('anonymous = "a.b"\n', **self.LOOPBACK)
        self.assertIn("no application's id", line)
        (line,) = self.mistakes("anonymous_anywhere = true\n", **self.LOOPBACK)
        self.assertIn("says nothing without anonymous", line)

    def test_proxies(self) -> None:
        """Proxies are addresses and networks; a base URL is one, with its scheme."""
        self.load('trusted_proxies = ["10.0.0.5", "10.0.0.0/8", "fd00::/8"]\nconsumer_base_url = "https://kafka.example.com:8443/psubd"\n')
        (line,) = self.mistakes('trusted_proxies = ["proxy.example.com"]\n')
        self.assertIn("neither an address nor a network", line)
        for url in ("kafka.example.com", "ftp://kafka.example.com", "https://a b/"):
            (line,) = self.mistakes(f'consumer_base_url = "{url}"\n')
            self.assertIn("consumer_base_url", line)


class FileTests(SynchronousTestCase):
    """etc/psubd.toml is the defaults and the manual."""

    PATH = ROOT / "etc" / "psubd.toml"

    def setUp(self) -> None:
        self.schemes = compose.schemes()
        self.tree = tomllib.loads(self.PATH.read_text())

    def test_changes_nothing(self) -> None:
        """The file as it stands gives the configuration that no file gives."""
        got, bare = (load({"state": "/s"}, file, {}, self.schemes, lambda text: None) for file in (str(self.PATH), None))
        empty = {"storage_tables": {}, "registry_tables": {}}
        self.assertEqual(msgspec.structs.replace(got, **empty), bare)
        self.assertEqual(self.tree["state"], Config().state)

    def test_lists_every_setting(self) -> None:
        """Every setting stands in it, and nothing else."""
        named = {name for name, value in self.tree.items() if not isinstance(value, dict)}
        self.assertEqual(named | {"storage", "registry", "peer_tls"}, set(config.NAMES))
        self.assertEqual(self.tree["peer_tls"], msgspec.structs.asdict(config.PeerTls()))
        self.assertEqual((self.tree["storage"]["url"], self.tree["registry"]["url"]), (Config().storage, Config().registry))

    def test_tables_are_the_plugins_defaults(self) -> None:
        """[storage.sqlite] and [storage.memory] hold every setting of theirs with its default."""
        for scheme, settings in (("sqlite", SqliteSettings()), ("memory", MemorySettings())):
            self.assertEqual(self.tree["storage"][scheme], msgspec.structs.asdict(settings))

    def test_without_a_default(self) -> None:
        """So is every one of Kafka's and ZooKeeper's that has a default; those that have none are named in its comments: TOML cannot say nothing."""
        for kind, scheme, default, end in (
            ("storage", "kafka", KafkaSettings(), "[storage.rdkafka]"),
            ("storage", "rdkafka", RdKafkaSettings(), "[registry]"),
            ("registry", "zk", ZooKeeperSettings(), "[peer_tls]"),
        ):
            settings = msgspec.structs.asdict(default)
            self.assertEqual(self.tree[kind][scheme], {name: value for name, value in settings.items() if value is not None})
            before, _, behind = self.PATH.read_text().partition(f"[{kind}.{scheme}]")
            table = before.rpartition("\n\n")[2] + behind.partition(end)[0]
            comments = " ".join(line for line in table.splitlines() if line.startswith("#"))
            self.assertEqual([name for name, value in settings.items() if value is None and not re.search(rf"\b{name}\b", comments)], [])

    def test_reasons(self) -> None:
        """Each setting has a comment above it that says why."""
        for paragraph in self.PATH.read_text().split("\n\n"):
            lines = [line for line in paragraph.splitlines() if line and not line.startswith("[")]
            if any(not line.startswith("#") for line in lines):
                self.assertTrue(lines[0].startswith("# ") or "[" in paragraph, paragraph)

    def test_manual_follows(self) -> None:
        """man/psubd.toml.5 and docs/configuration.md are derived from it."""
        done = subprocess.run([sys.executable, str(ROOT / "docs" / "derive.py"), "--check"], capture_output=True, text=True)
        self.assertEqual((done.returncode, done.stderr), (0, ""))

    def test_command_line_in_the_manual(self) -> None:
        """psubd(8) tells every option, and nothing that is not one."""
        page = (ROOT / "man" / "psubd.8").read_text().replace("\\-", "-")
        options_section = page.partition(".SH OPTIONS")[2].partition(".SH ENVIRONMENT")[0]
        told = set(re.findall(r"^\.BI? (--[a-z-]+)", options_section, re.MULTILINE))
        options = tap.Options()
        self.assertEqual(told, {f"--{name.rstrip('=')}" for name in options.longOpt} - {"--version"})
