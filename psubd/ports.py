"""The ports: opened from endpoint descriptions, and told to people."""

from collections.abc import Sequence
from typing import Any

import msgspec
from twisted.internet.address import IPv4Address, IPv6Address, UNIXAddress
from twisted.internet.endpoints import serverFromString
from twisted.internet.error import CannotListenError
from twisted.internet.interfaces import IListeningPort, IProtocolFactory

from psubd.errors import ConfigError

ANY = ("0.0.0.0", "::", "")  # noqa: S104 - compared with, not bound to


async def listen(reactor: Any, setting: str, description: str, factory: IProtocolFactory) -> IListeningPort:
    """Open the port. :raises ConfigError: it is taken, not allowed, or not this host's."""
    try:
        port: IListeningPort = await serverFromString(reactor, description).listen(factory)
    except CannotListenError as refused:
        why = getattr(refused.socketError, "strerror", None) or refused.socketError
        raise ConfigError([f"{setting}: {description!r}: cannot listen: {why}"]) from None
    except OSError as refused:
        raise ConfigError([f"{setting}: {description!r}: cannot listen: {refused.strerror or refused}"]) from None
    return port


def place(port: IListeningPort) -> int | str:
    """The port's number, or the path of its socket."""
    address = port.getHost()
    if isinstance(address, IPv4Address | IPv6Address):
        return address.port
    return name_of(address)


def name_of(address: Any) -> str:
    """The path of a UNIX address."""
    name = address.name if isinstance(address, UNIXAddress) else None
    return name.decode("utf-8", "replace") if isinstance(name, bytes) else str(name or address)


class Reached(msgspec.Struct, frozen=True):
    """How a client on this host reaches a port: a URL, and what curl needs beside it."""

    url: str
    options: Sequence[str] = ()

    @classmethod
    def at(cls, description: str, address: Any) -> "Reached":
        options = []
        while description.startswith("haproxy:"):
            description = description.removeprefix("haproxy:")
            options = ["--haproxy-protocol"]
        if isinstance(address, IPv4Address | IPv6Address):
            secure = description.startswith("ssl:")
            return cls(f"{'https' if secure else 'http'}://{host_of(address)}:{address.port}", [*options, *(["--insecure"] if secure else [])])
        return cls("http://localhost", [*options, "--unix-socket", name_of(address)])


def host_of(address: IPv4Address | IPv6Address) -> str:
    """The host as it stands in a URL; loopback for a port on every interface."""
    if isinstance(address, IPv6Address):
        return "[::1]" if address.host in ANY else f"[{address.host}]"
    return "127.0.0.1" if address.host in ANY else address.host
