"""``twistd psubd``: the command line. argv -> `Config` -> `psubd.daemon`."""

import os
import sys
from collections.abc import Sequence
from functools import partial
from typing import Any, NoReturn

from twisted.application.service import IService
from twisted.internet.defer import Deferred
from twisted.internet.endpoints import serverFromString
from twisted.python import usage

from psubd import compose, worker, workers
from psubd.checks import check
from psubd.config import Config, load
from psubd.daemon import Daemon
from psubd.errors import ConfigError
from psubd.process import steady


class Options(usage.Options):
    """What ``twistd psubd`` takes. After `parseOptions` the whole configuration is in `settings`.

    A mistake is told on stderr and ends the process with status 1: twistd itself would print all of its help first, to stdout.
    """

    synopsis = "[options]"
    settings: Config

    optParameters = [
        ["state", None, None, "Folder of the embedded store, the embedded registry and the tokens [default: /var/lib/psubd, or else ./psubd-state]"],
        ["storage", None, None, "URL of the storage, see below [default: sqlite:]"],
        ["registry", None, None, "URL of the registry, see below [default: sqlite:]"],
        ["peer-address", None, None, "host:port where other nodes reach the peer port [default: the interface that --peer names]"],
        ["mode", None, None, "pubsub, pub (no subscribing) or sub (no publishing) [default: pubsub]"],
        ["workers", None, None, "Processes that share the data port, each a node: for a registry of many nodes [default: 1]"],
        ["config", None, None, "TOML file with the same settings, and those that have no option; the command line wins"],
    ]
    optFlags = [
        ["demo", None, "Make application demo bound to topic demo, and print two curl lines that work"],
        ["check", None, "Check all of the configuration and what it points at, say what was found, exit"],
    ]

    def __init__(self) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self.repeated: dict[str, list[str]] = {}
        self.words: Sequence[str] = ()

    def getUsage(self, width: int | None = None) -> str:
        """As twisted's, and the URL schemes of the plugins that were found."""
        usage_of_options: str = super().getUsage(width)
        try:
            schemes = compose.schemes()
        except ConfigError as refused:
            return "\n".join([usage_of_options, *refused.mistakes, ""])
        lines = ["Storages:", *lines_of(schemes.storages.values()), "Registries:", *lines_of(schemes.registries.values())]
        return "\n".join([usage_of_options, *lines, "", "psubd(8) and psubd.toml(5) say more.", ""])

    def opt_listen(self, endpoint: str) -> None:
        """Data port, a Twisted endpoint description; repeatable [default: tcp:9090]"""
        self.repeated.setdefault("listen", []).append(endpoint)

    def opt_manager(self, endpoint: str) -> None:
        """Manager port; repeatable [default: tcp:9091:interface=127.0.0.1]"""
        self.repeated.setdefault("manager", []).append(endpoint)

    def opt_peer(self, endpoint: str) -> None:
        """Port for other nodes, which a registry of many nodes needs: on loopback, or with [peer_tls] in the file [default: none]"""
        self.repeated.setdefault("peer", []).append(endpoint)

    def parseArgs(self, *rest: str) -> None:
        """psubd takes options only."""
        if rest:
            raise usage.UsageError(f"{rest[0]!r} is not an option; twistd psubd --help lists them")

    def parseOptions(self, options: Sequence[str] | None = None) -> None:
        """As twisted's, but mistakes are told plainly."""
        self.words = list(options or ())
        try:
            super().parseOptions(options)  # type: ignore[no-untyped-call]
        except usage.UsageError as refused:
            refuse([line for line in str(refused).splitlines() if line])

    def postOptions(self) -> None:
        """Read, gather and judge the configuration."""
        from twisted.internet import reactor  # taken here, since importing it installs one; twistd's --reactor came before

        try:
            parse = partial(serverFromString, reactor)
            self.settings = load(self.given(), self["config"], os.environ, compose.schemes(), parse, compose.peer_mistakes)
        except ConfigError as refused:
            raise usage.UsageError(str(refused)) from None
        if self["check"]:
            # here and not in makeService: twistd would look at its pid file before, and go into the background after
            raise SystemExit(0 if self.check(reactor) else 1)

    def check(self, reactor: Any) -> bool:
        """Run `psubd.checks.check` in a reactor of its own time."""
        outcome: list[bool] = []

        async def run() -> None:
            try:
                outcome.append(await check(self.settings, reactor, sys.stdout))
            finally:
                reactor.stop()

        reactor.callWhenRunning(lambda: Deferred.fromCoroutine(run()).addErrback(lambda failure: failure.printTraceback()))
        reactor.run()
        return outcome == [True]

    def given(self) -> dict[str, Any]:
        """The settings that the command line names, by their names in `Config`."""
        values: dict[str, Any] = dict(self.repeated)
        for name in ("state", "storage", "registry", "peer-address", "mode", "workers"):
            if self[name] is not None:
                values[name.replace("-", "_")] = self[name]
        if self["demo"]:
            values["demo"] = True
        return values

    def paths(self) -> dict[str, str]:
        """Options that name files, for a process that is in another folder."""
        paths = {"state": self.settings.state}
        return {**paths, "config": os.path.abspath(self["config"])} if self["config"] else paths

    def reactor(self) -> str | None:
        """The name of the reactor that twistd was given."""
        name: str | None = self.parent.get("reactor") if self.parent is not None else None
        return name


def lines_of(factories: Any) -> list[str]:
    """One line of --help for each plugin."""
    return [f"  {factory.usage}" for factory in sorted(factories, key=lambda factory: factory.scheme)]


def refuse(mistakes: Sequence[str]) -> NoReturn:
    """Tell the mistakes and end."""
    for mistake in mistakes:
        print(f"psubd: {mistake}", file=sys.stderr)
    raise SystemExit(1)


def makeService(options: Options) -> IService:
    """The daemon, not started."""
    from twisted.internet import reactor  # as above

    steady(reactor)
    settings = options.settings
    if settings.worker is not None:
        worker.follow(reactor)
        return Daemon(settings, reactor, speaker=worker.speaker())
    if settings.workers > 1:
        return workers.Supervisor(settings, reactor, workers.command(options.words, options.paths(), options.reactor()))
    return Daemon(settings, reactor)
