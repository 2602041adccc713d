"""The ports: opened from endpoint descriptions, told to people, and closed without a client that notices."""

import ctypes
import select
import socket
import struct
from collections.abc import Sequence
from contextlib import suppress
from typing import Any

import msgspec
from twisted.internet.abstract import isIPv6Address
from twisted.internet.address import IPv4Address, IPv6Address, UNIXAddress
from twisted.internet.endpoints import serverFromString
from twisted.internet.error import CannotListenError
from twisted.internet.interfaces import IListeningPort, IProtocolFactory
from twisted.internet.tcp import makeBinding

from psubd.errors import ConfigError

SO_ATTACH_FILTER = 26
"""Linux, ``asm-generic/socket.h``; Python's socket module does not have it."""

OWN = frozenset(("tcp", "tcp6", "ssl"))
"""Endpoints whose socket psubd has made. One that was given to it (``systemd:``, ``fd:``) goes on without it, and what waits there too."""

MOST_WAITING = 65_536
"""More than any backlog holds."""

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


class Sharing:
    """The reactor, for endpoints whose TCP ports other processes of this user listen on too: the kernel gives each connection to one of them."""

    def __init__(self, reactor: Any) -> None:
        self._reactor = reactor

    def __getattr__(self, name: str) -> Any:
        return getattr(self._reactor, name)

    def listenTCP(self, port: int, factory: IProtocolFactory, backlog: int = 50, interface: str = "") -> IListeningPort:
        made: IListeningPort = self._reactor.listenTCP(shared(interface, port), factory, backlog, interface)
        return made

    def listenSSL(self, port: int, factory: IProtocolFactory, contextFactory: Any, backlog: int = 50, interface: str = "") -> IListeningPort:
        made: IListeningPort = self._reactor.listenSSL(shared(interface, port), factory, contextFactory, backlog, interface)
        return made


def shared(interface: str, port: int) -> Any:
    """What Twisted's reactors take as a port: this one, with SO_REUSEPORT."""
    return makeBinding(interface, port, reuseAddress=True, reusePort=True)


class Claims:
    """Stands where an endpoint expects a reactor, and listens on nothing: a port that is opened is bound, for processes that share it. Until `close`
    it has one number for all of them, also where any was asked for, and nobody else gets it while none of them listens.

    A port on which somebody listens, sharing or not, is refused: two psubd that shared one would each take half of the other's requests.
    """

    def __init__(self) -> None:
        self._held: list[socket.socket] = []

    def listenTCP(self, port: int, factory: IProtocolFactory, backlog: int = 50, interface: str = "") -> "Claim":
        handle = socket.socket(socket.AF_INET6 if isIPv6Address(interface) else socket.AF_INET)
        self._held.append(handle)
        handle.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        handle.bind((interface, port))
        handle.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEPORT, 1)  # now, not before: it would have bound beside one who shares
        return Claim(handle)

    def listenSSL(self, port: int, factory: IProtocolFactory, contextFactory: Any, backlog: int = 50, interface: str = "") -> "Claim":
        return self.listenTCP(port, factory, backlog, interface)

    def close(self) -> None:
        """Others may have the ports."""
        while self._held:
            self._held.pop().close()


class Claim:
    """A port that is bound; see `place`."""

    def __init__(self, handle: socket.socket) -> None:
        host, number = handle.getsockname()[:2]
        self._address = (IPv6Address if handle.family == socket.AF_INET6 else IPv4Address)("TCP", host, number)

    def getHost(self) -> IPv4Address | IPv6Address:
        return self._address


class Instruction(ctypes.Structure):
    """``struct sock_filter`` (``linux/filter.h``)."""

    _fields_ = [("code", ctypes.c_uint16), ("jt", ctypes.c_uint8), ("jf", ctypes.c_uint8), ("k", ctypes.c_uint32)]


NO_NEW_ONES = (Instruction * 5)(
    Instruction(0x30, 0, 0, 13),  # the byte with TCP's flags
    Instruction(0x54, 0, 0, 0x12),  # of these SYN and ACK
    Instruction(0x15, 0, 1, 0x02),  # SYN alone:
    Instruction(0x06, 0, 0, 0),  # dropped
    Instruction(0x06, 0, 0, 0xFFFFFFFF),  # all else: taken
)
"""A filter that lets no connection begin, and those that have begun be completed."""


def turn_away(description: str, port: Any) -> None:
    """No connection to the port begins any more: the kernel hears none of it, and once the port is closed the client, which asks again after a
    second, is refused. Without that, whoever came between the last accept and the close would be reset with its request sent. Where it is not
    the kernel's to do (another system, a UNIX socket) nothing happens."""
    handle = socket_of(port)
    if handle is None or kind_of(description) not in OWN:
        return
    with suppress(OSError):
        program = struct.pack("@HP", len(NO_NEW_ONES), ctypes.addressof(NO_NEW_ONES))
        handle.setsockopt(socket.SOL_SOCKET, SO_ATTACH_FILTER, program)


def accept_rest(description: str, port: Any) -> None:
    """Accept what the kernel holds for the port; close it in the same turn."""
    handle = socket_of(port)
    if handle is None or kind_of(description) not in (*OWN, "unix"):
        return
    waits = select.poll()
    waits.register(handle, select.POLLIN)
    for _ in range(MOST_WAITING):
        if not waits.poll(0):
            return
        port.doRead()


def socket_of(port: Any) -> socket.socket | None:
    """The port's socket; None: it has none of its own (tests), or is closed."""
    handle = getattr(port, "socket", None)
    return handle if isinstance(handle, socket.socket) and handle.fileno() >= 0 else None


def kind_of(description: str) -> str:
    """What the endpoint description begins with, without what only wraps."""
    while description.startswith("haproxy:"):
        description = description.removeprefix("haproxy:")
    return description.partition(":")[0]


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
