"""What psubd is told: file + environment + command line -> one frozen `Config`, every mistake reported at once.

The command line wins over the environment, the environment over the file, the file over the defaults. `Config` is the only list of the settings:
etc/psubd.toml, the man page and the docs are held against it by a test. Nothing is opened or listened on here but the configuration file.
"""

import difflib
import os
import re
import tomllib
import typing
from collections.abc import Callable, Mapping, Sequence
from ipaddress import ip_address, ip_network
from typing import Annotated, Any, Literal

import msgspec
from msgspec import Meta

from psubd.crew import Crew, Spot, Worker
from psubd.errors import ConfigError
from psubd.fields import application_id
from psubd.interfaces import IRegistryFactory, IStorageFactory

DEFAULT_STATE = "/var/lib/psubd"
"""Where the state is kept unless told otherwise; a user who cannot write there gets ./psubd-state (`default_state`)."""

Milliseconds = Annotated[int, Meta(ge=1, le=86_400_000)]
Table = Mapping[str, Any]

SECRET_NAME = re.compile(r"pass|secret|token|credential|private|sasl|auth", re.IGNORECASE)
"""Names of table settings and URL parameters whose values are never shown."""

HIDDEN = "***"

BASE_URL = re.compile(r"https?://(?:\[[0-9A-Fa-f:.]+\]|[A-Za-z0-9._-]+)(?::[0-9]{1,5})?(?:/[A-Za-z0-9._~!$&'()*+,;=:@%-]*)*")
"""Of ``consumer_base_url``."""

WORKER = "PSUBD_WORKER"
"""The environment's variable by which a process that psubd starts is told its `Worker`, as JSON. Nobody else sets it."""


class PeerTls(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """``[peer_tls]``: paths of PEM files; all of them empty: nodes are on loopback.

    :ivar certificate: this node's, with what lies between it and the authority after it; it names the host of the node's peer address.
    :ivar key: its private key. :ivar authority: whose certificates nodes have; one or more.
    """

    certificate: str = ""
    key: str = ""
    authority: str = ""


class Config(msgspec.Struct, frozen=True, kw_only=True):
    """Every setting with its default. Names that end in ``_ms`` are milliseconds, in ``_bytes`` bytes. The reasons are in etc/psubd.toml.

    ``storage`` and ``registry`` are URLs; ``storage_tables`` and ``registry_tables`` the file's ``[storage.<scheme>]`` tables, which the scheme's
    plugin judges. ``admin_token`` comes from the environment only, and ``worker`` from the process that started this one.
    """

    state: str = DEFAULT_STATE
    storage: str = "sqlite:"
    registry: str = "sqlite:"
    listen: tuple[str, ...] = ("tcp:9090",)
    manager: tuple[str, ...] = ("tcp:9091:interface=127.0.0.1",)
    peer: tuple[str, ...] = ()
    peer_address: str = ""
    peer_tls: PeerTls = PeerTls()
    mode: Literal["pubsub", "pub", "sub"] = "pubsub"
    workers: Annotated[int, Meta(ge=1, le=1024)] = 1
    demo: bool = False
    manager_hosts: tuple[str, ...] = ()
    manager_plain: bool = False
    manager_secure_cookie: bool = False
    max_message_bytes: Annotated[int, Meta(ge=1024, le=67_108_864)] = 1_048_576
    head_timeout_ms: Milliseconds = 10_000
    body_timeout_ms: Milliseconds = 30_000
    idle_timeout_ms: Milliseconds = 75_000
    write_timeout_ms: Milliseconds = 30_000
    body_budget_bytes: Annotated[int, Meta(ge=16_777_216, le=1 << 40)] = 268_435_456
    max_connections: Annotated[int, Meta(ge=1, le=1_000_000)] = 20_000
    commit_interval_ms: Annotated[int, Meta(ge=1, le=60_000)] = 500
    drain_timeout_ms: Milliseconds = 8_000
    drain_delay_ms: Annotated[int, Meta(ge=0, le=3_600_000)] = 5_000
    snapshot_max_age_s: Annotated[int, Meta(ge=1, le=31_536_000)] = 3_600
    anonymous: str = ""
    anonymous_anywhere: bool = False
    trusted_proxies: tuple[str, ...] = ()
    consumer_base_url: str = ""
    consumer_instance_timeout_ms: Milliseconds = 300_000
    consumer_request_timeout_ms: Annotated[int, Meta(ge=0, le=60_000)] = 1_000
    consumer_request_max_bytes: Annotated[int, Meta(ge=1024, le=67_108_864)] = 67_108_864
    application_topics: Annotated[int, Meta(ge=0, le=100_000)] = 100
    storage_tables: Table = {}
    registry_tables: Table = {}
    admin_token: str | None = None
    worker: Worker | None = None

    @property
    def folder(self) -> str:
        """The state folder that was named: of all workers, where there are several."""
        return self.state if self.worker is None else self.worker.folder

    @property
    def crew(self) -> Crew:
        """The workers that this asks for."""
        return Crew(self.workers, self.state, self.listen, self.manager, self.peer, self.peer_address)

    def of(self, worker: Worker) -> "Config":
        """The settings of that worker. What is done once for all is the first one's."""
        own = {name: getattr(worker, name) for name in ("state", "listen", "manager", "peer", "peer_address")}
        return msgspec.structs.replace(self, worker=worker, demo=self.demo and worker.number == 0, **own)

    def view(self) -> dict[str, Any]:
        """All settings as JSON values, without a credential: for the status page, ``--check`` and the log."""
        shown: dict[str, Any] = {name: getattr(self, name) for name in NAMES}
        shown["storage"], shown["registry"] = redact(self.storage), redact(self.registry)
        for name in ("listen", "manager", "peer", "manager_hosts", "trusted_proxies"):
            shown[name] = list(shown[name])
        shown["peer_tls"] = msgspec.structs.asdict(self.peer_tls)
        return {**shown, "storage_tables": hide(self.storage_tables), "registry_tables": hide(self.registry_tables)}

    def __repr__(self) -> str:
        return f"Config({self.view()!r})"


NO_SETTINGS = ("storage_tables", "registry_tables", "admin_token", "worker")

NAMES = tuple(field.name for field in msgspec.structs.fields(Config) if field.name not in NO_SETTINGS)
"""The settings by name, in the order of etc/psubd.toml."""

URLS = ("storage", "registry")

PEERS = ("peer", "peer_address", "peer_tls")
"""The settings that only many nodes have."""

PeerJudge = Callable[[Sequence[str], str, PeerTls], list[str]]
"""Every mistake in ``peer``, ``peer_address`` and ``peer_tls``, a line each that begins with the setting's name."""


class Schemes(msgspec.Struct, frozen=True):
    """The plugins that were found, by URL scheme."""

    storages: Mapping[str, IStorageFactory]
    registries: Mapping[str, IRegistryFactory]


def load(
    argv: Mapping[str, Any],
    file: str | None,
    environ: Mapping[str, str],
    schemes: Schemes,
    parse_endpoint: Callable[[str], object],
    judge_peers: PeerJudge = lambda peer, address, tls: [],
) -> Config:
    """The configuration, or every mistake in it.

    :param argv: the settings that the command line names, by their names here.
    :param file: path of the TOML file, or None.
    :param parse_endpoint: raises for a bad endpoint description; must not listen (`twisted.internet.endpoints.serverFromString`).
    :param judge_peers: `psubd.peers.line.peer_mistakes`.
    :raises ConfigError: with all mistakes, each naming the setting and what to do.
    """
    gathered = Gathered()
    if file is not None:
        gathered.file(file)
    gathered.environment(environ)
    gathered.command_line(argv)
    config = gathered.config()
    mistakes = gathered.mistakes + Judge(config, gathered.origins, schemes, parse_endpoint, judge_peers).mistakes()
    if mistakes:
        raise ConfigError(mistakes)
    return config.of(gathered.worker) if gathered.worker is not None else config


class Gathered:
    """The settings as they come in, later ones over earlier ones, with where each came from and what was wrong with it."""

    def __init__(self) -> None:
        self.values: dict[str, Any] = {}
        self.origins: dict[str, str] = {}
        self.mistakes: list[str] = []
        self.worker: Worker | None = None

    def config(self) -> Config:
        """What was gathered over the defaults; paths are made absolute, since a daemon changes its folder."""
        self.values["state"] = os.path.abspath(self.values["state"]) if self.values.get("state") else default_state()
        return Config(**self.values)

    def put(self, name: str, value: Any, origin: str) -> None:
        """Take ``value`` for the setting ``name`` if it has its shape."""
        wanted = TYPES[name]
        try:
            self.values[name] = msgspec.convert(value, wanted)
        except msgspec.ValidationError:
            self.mistakes.append(f"{origin}: {expected(wanted)}")
        else:
            self.origins[name] = origin

    def file(self, path: str) -> None:
        """The settings of the TOML file at ``path``."""
        try:
            with open(path, "rb") as opened:
                tree = tomllib.load(opened)
        except OSError as refused:
            self.mistakes.append(f"--config {path}: cannot be read: {refused.strerror}")
        except (tomllib.TOMLDecodeError, UnicodeDecodeError) as broken:
            self.mistakes.append(f"{path}: not TOML: {broken}")
        else:
            for name, value in tree.items():
                self.file_setting(path, name, value)

    def file_setting(self, path: str, name: str, value: Any) -> None:
        """One top-level name of the file."""
        if name in URLS and isinstance(value, dict):
            self.scheme_tables(path, name, value)
        elif name in NAMES:
            self.put(name, value, f"{path}: {name}")
        else:
            self.mistakes.append(f"{path}: {name} is not a setting; {suggestion(name)}")

    def scheme_tables(self, path: str, name: str, table: Mapping[str, Any]) -> None:
        """``[storage]`` and its ``[storage.<scheme>]``: ``url`` is the setting itself, the tables belong to the plugins."""
        tables = {}
        for key, value in table.items():
            if isinstance(value, dict):
                tables[key] = value
            elif key == "url":
                self.put(name, value, f"{path}: {name}.url")
            else:
                self.mistakes.append(f"{path}: {name}.{key} is not a setting; [{name}] takes url, and a table for each scheme as [{name}.sqlite]")
        self.values[f"{name}_tables"] = tables

    def environment(self, environ: Mapping[str, str]) -> None:
        """``PSUBD_STORAGE``, ``PSUBD_REGISTRY`` (URLs, which may carry credentials) and ``PSUBD_ADMIN_TOKEN``; what a worker is told."""
        for name in URLS:
            variable = f"PSUBD_{name.upper()}"
            if variable in environ:
                self.put(name, environ[variable], variable)
        if WORKER in environ:
            self.told(environ[WORKER])
        token = environ.get("PSUBD_ADMIN_TOKEN")
        if token is not None:
            self.values["admin_token"] = token
            if re.fullmatch(r"[!-~]{16,200}", token) is None:
                self.mistakes.append("PSUBD_ADMIN_TOKEN: write 16 to 200 printable ASCII characters without blanks, or leave it unset")

    def told(self, text: str) -> None:
        """What the process that started this one says."""
        try:
            self.worker = msgspec.json.decode(text, type=Worker)
        except msgspec.DecodeError:
            self.mistakes.append(f"{WORKER}: psubd sets it for its workers, and nobody else; leave it unset")

    def command_line(self, argv: Mapping[str, Any]) -> None:
        """The settings that the command line names."""
        for name, value in argv.items():
            option = "--" + name.replace("_", "-")
            if name == "workers":
                value = int(value) if re.fullmatch(r"[0-9]{1,9}", str(value), re.ASCII) else value
            self.put(name, value, option)
            if name in URLS and isinstance(value, str) and carries_credentials(value):
                self.mistakes.append(
                    f"{option}: holds credentials, and everybody on this host can read a command line; use PSUBD_{name.upper()} or the file"
                )


class Judge:
    """The rules that span settings, or that only the plugins know."""

    def __init__(
        self, config: Config, origins: Mapping[str, str], schemes: Schemes, parse_endpoint: Callable[[str], object], judge_peers: PeerJudge
    ) -> None:
        self.config = config
        self.origins = origins
        self.schemes = schemes
        self.parse_endpoint = parse_endpoint
        self.judge_peers = judge_peers

    def mistakes(self) -> list[str]:
        """All that break a rule."""
        return [
            *self.url("storage", self.config.storage, self.schemes.storages, self.config.storage_tables),
            *self.url("registry", self.config.registry, self.schemes.registries, self.config.registry_tables),
            *self.together(),
            *(mistake for name in ("listen", "manager", "peer") for mistake in self.endpoints(name)),
            *self.manager_exposure(),
            *self.strangers(),
            *self.proxies(),
            *self.processes(),
            *self.nodes(),
        ]

    def origin(self, name: str) -> str:
        """Where the setting was given, for its mistakes."""
        return self.origins.get(name, name)

    def url(self, name: str, url: str, factories: Mapping[str, Any], tables: Table) -> list[str]:
        """The scheme is one that a plugin provides, and the plugin has nothing against the URL and its table."""
        known = ", ".join(f"{scheme}:" for scheme in sorted(factories)) or "none"
        found = [f"[{name}.{scheme}]: no plugin provides {scheme}:; the schemes are {known}" for scheme in sorted(tables) if scheme not in factories]
        scheme, colon, _ = url.partition(":")
        if not colon or scheme not in factories:
            return [*found, f"{self.origin(name)}: {redact(url)!r} begins with no known scheme; the schemes are {known}"]
        said = factories[scheme].check(url, tables.get(scheme, {}))
        return [*found, *(mistake if mistake.startswith(name) else f"{self.origin(name)}: {mistake}" for mistake in said)]

    def together(self) -> list[str]:
        """Nodes that share a registry share a log."""
        registry = self.schemes.registries.get(scheme_of(self.config.registry))
        storage = self.schemes.storages.get(scheme_of(self.config.storage))
        if registry is None or storage is None or not registry.shared or storage.shared:
            return []
        return [
            f"{self.origin('storage')}: each node would have a log of its own: "
            f"the registry {registry.scheme}: needs a storage that all nodes share, and {storage.scheme}: is not one"
        ]

    def endpoints(self, name: str) -> list[str]:
        """Endpoint descriptions can be parsed, and there is at least one (peer: none is needed)."""
        descriptions: tuple[str, ...] = getattr(self.config, name)
        if not descriptions and name != "peer":
            return [f"{self.origin(name)}: name at least one endpoint, as tcp:9090"]
        return [mistake for description in descriptions for mistake in self.endpoint(name, description)]

    def endpoint(self, name: str, description: str) -> list[str]:
        """What is wrong with one endpoint description."""
        where = f"{self.origin(name)}: {description!r}"
        try:
            self.parse_endpoint(description)
        except Exception as refused:  # noqa: BLE001 - Twisted's and third parties' parsers raise anything (ValueError, TypeError, OSError, OpenSSL's own)
            return [f"{where} is not an endpoint that can be used ({refused}); write one as tcp:9090, tcp:9090:interface=127.0.0.1, ssl:443:..."]
        port = Listener.of(description).port
        if port is not None and port > 65535:
            return [f"{where}: a port is 0 to 65535"]
        return []

    def manager_exposure(self) -> list[str]:
        """The manager's tokens do not cross a network in the clear unless somebody said so."""
        if self.config.manager_plain:
            return []
        return [
            f"{self.origin('manager')}: {description!r} takes tokens in the clear from other hosts; "
            "bind it to loopback (interface=127.0.0.1), use ssl:, or set manager_plain = true in the file where something in front of it does TLS"
            for description in self.config.manager
            if Listener.of(description).exposed
        ]

    def strangers(self) -> list[str]:
        """Nobody is let in without credentials from other hosts unless somebody said so."""
        anonymous = self.config.anonymous
        if not anonymous:
            return [f"{self.origin('anonymous_anywhere')}: says nothing without anonymous; leave it out"] if self.config.anonymous_anywhere else []
        if not application_id(anonymous):
            return [f"{self.origin('anonymous')}: {anonymous!r} is no application's id: letters, digits, _ and -, at most 64"]
        if self.config.anonymous_anywhere:
            return []
        return [
            f"{self.origin('anonymous')}: {description!r} lets everybody who reaches it publish and read as application {anonymous!r}; "
            "bind it to loopback (interface=127.0.0.1), or set anonymous_anywhere = true"
            for description in self.config.listen
            if not Listener.of(description).local
        ]

    def proxies(self) -> list[str]:
        """Proxies are addresses or networks, and a base URL is one."""
        found = [
            f"{self.origin('trusted_proxies')}: {proxy!r} is neither an address nor a network; write them as 10.0.0.5, 10.0.0.0/8, fd00::/8"
            for proxy in self.config.trusted_proxies
            if not is_network(proxy)
        ]
        if self.config.consumer_base_url and BASE_URL.fullmatch(self.config.consumer_base_url) is None:
            found.append(f"{self.origin('consumer_base_url')}: write what clients reach the data port by, as https://kafka.example.com/psubd")
        return found

    def processes(self) -> list[str]:
        """Several processes are several nodes, and have ports enough."""
        registry, config = self.schemes.registries.get(scheme_of(self.config.registry)), self.config
        if config.workers == 1 or registry is None:
            return []
        if not registry.shared:
            return [
                f"{self.origin('workers')}: the registry {registry.scheme}: is of one process, and so is an embedded storage; write 1, "
                "or have each worker be a node: --registry zk://..., a storage that nodes share (kafka://...), and --peer"
            ]
        found = (mistake.partition(": ") for mistake in config.crew.mistakes())
        return [f"{self.origin(name)}: {text}" for name, _, text in found]

    def nodes(self) -> list[str]:
        """One node has no peers; many nodes reach each other, and no stranger does."""
        registry, config = self.schemes.registries.get(scheme_of(self.config.registry)), self.config
        if registry is None:
            return []
        if not registry.shared:
            given = [name for name in PEERS if getattr(config, name) != getattr(Config(), name)]
            return [f"{self.origin(name)}: the registry {registry.scheme}: is of one node, which has no peers; leave it out" for name in given]
        tls = msgspec.structs.asdict(config.peer_tls)
        if any(tls.values()) and not all(tls.values()):
            return [f"{self.origin('peer_tls')}: {', '.join(name for name in tls if not tls[name])}: missing; name all three files, or none"]
        if not config.peer:
            return [
                f"{self.origin('peer')}: the nodes of a registry {registry.scheme}: talk to each other; "
                "name the port for that, as tcp:9092:interface=10.0.0.5 with peer_tls, or tcp:9092:interface=127.0.0.1"
            ]
        found = (mistake.partition(": ") for mistake in self.judge_peers(config.peer, config.peer_address, config.peer_tls))
        return [f"{self.origin(name)}: {text}" for name, _, text in found]


class Listener(msgspec.Struct, frozen=True):
    """What an endpoint description says of where it can be reached from, as far as it can be told. ``exposed``: in the clear, from other hosts.
    ``local``: from this host only."""

    port: int | None
    exposed: bool
    local: bool

    @classmethod
    def of(cls, description: str) -> "Listener":
        spot = Spot.of(description)
        local = spot.kind == "unix" or loopback(spot.interface)
        return cls(port=spot.port, exposed=spot.kind != "ssl" and not local, local=local)


def loopback(interface: str) -> bool:
    """Whether only this host reaches a listener on the interface."""
    if interface == "localhost":
        return True
    try:
        return ip_address(interface).is_loopback
    except ValueError:
        return False


def is_network(text: str) -> bool:
    """Whether it is an address, or a network."""
    try:
        ip_network(text, strict=False)
    except ValueError:
        return False
    return True


def default_state() -> str:
    """`DEFAULT_STATE` where it can be written (or made), else ``./psubd-state``. Absolute."""
    there = DEFAULT_STATE if os.path.isdir(DEFAULT_STATE) else os.path.dirname(DEFAULT_STATE)
    return DEFAULT_STATE if os.access(there, os.W_OK | os.X_OK) else os.path.abspath("psubd-state")


def scheme_of(url: str) -> str:
    """What stands before the first colon."""
    return url.partition(":")[0]


def carries_credentials(url: str) -> bool:
    """Whether the URL holds a user's name, a password, or a parameter that sounds like one."""
    return redact(url) != url


def redact(url: str) -> str:
    """The URL without what may be a credential: everything before the last ``@`` of the authority, and parameters that sound secret."""
    head, question, query = url.partition("?")
    scheme, slashes, rest = head.partition("//")
    if slashes and "@" in rest:
        rest = f"{HIDDEN}@{rest.rpartition('@')[2]}"
    parameters = [
        f"{part.partition('=')[0]}={HIDDEN}" if SECRET_NAME.search(part.partition("=")[0]) and "=" in part else part for part in query.split("&")
    ]
    return f"{scheme}{slashes}{rest}{question}{'&'.join(parameters)}"


def hide(table: Table) -> dict[str, Any]:
    """A table with the values of secret-sounding names replaced."""
    return {name: hide(value) if isinstance(value, Mapping) else HIDDEN if SECRET_NAME.search(name) else value for name, value in table.items()}


def suggestion(name: str) -> str:
    """What an unknown name may have meant."""
    close = difflib.get_close_matches(name.replace("-", "_"), NAMES, n=1)
    return f"did you mean {close[0]}?" if close else "etc/psubd.toml and psubd.toml(5) list them all"


TYPES: dict[str, Any] = {name: annotation for name, annotation in typing.get_type_hints(Config, include_extras=True).items() if name in NAMES}


def expected(wanted: Any) -> str:
    """What a setting of this type takes, as advice."""
    if typing.get_origin(wanted) is Literal:
        return f"write one of {', '.join(typing.get_args(wanted))}"
    if wanted is PeerTls:
        return f"write a table with {', '.join(PeerTls.__struct_fields__)}, each the path of a PEM file"
    if typing.get_origin(wanted) is Annotated:
        _, bounds = typing.get_args(wanted)
        return f"write a whole number from {bounds.ge} to {bounds.le}"
    return {bool: "write true or false", str: "write one string"}.get(wanted, 'write a list of strings, as ["tcp:9090"]')
