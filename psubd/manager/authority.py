"""Under which names the manager answers, and from where a page may call it.

A page of another site can make a browser send requests here. DNS rebinding: its own name resolves to this host, so the request looks
same-origin to the browser, but ``Host`` is that name. A forged cross-site request: ``Origin`` is that site. Cookies do not help, since a
browser shares them between all ports of a host.
"""

import ipaddress
import re
from collections.abc import Iterable
from typing import NamedTuple

from psubd.errors import ForeignOrigin
from psubd.interfaces import IExchange

AUTHORITY = re.compile(r"(?P<name>\[[0-9a-f:.]+\]|[a-z0-9._-]+)(?::(?P<port>[0-9]{1,5}))?")
DEFAULT_PORTS = {"http": 80, "https": 443}


class Authority(NamedTuple):
    """A host's name in lower case, without brackets and final dot, and the port if it was named."""

    name: str
    port: int | None


def authority(text: str) -> Authority | None:
    """``host[:port]`` taken apart; None: it is not one."""
    found = AUTHORITY.fullmatch(text.lower())
    if found is None:
        return None
    name = found["name"].strip("[]").removesuffix(".")
    return Authority(name, int(found["port"]) if found["port"] else None)


def loopback(name: str) -> bool:
    """Whether a name means this host only."""
    if name == "localhost":
        return True
    try:
        return ipaddress.ip_address(name).is_loopback
    except ValueError:
        return False


class Doors:
    """The names that the manager answers to.

    :param hosts: configured names or addresses beside loopback; a port on one is ignored, since a proxy in front may have another.
    """

    def __init__(self, hosts: Iterable[str]) -> None:
        parsed = (authority(host) or authority(f"[{host}]") for host in hosts)
        self._names = {found.name for found in parsed if found is not None}

    def check(self, exchange: IExchange) -> None:
        """:raises ForeignOrigin: for a host that is not ours, or an origin that is not the host."""
        host = authority((exchange.header(b"host") or b"").decode("latin-1"))
        if host is None or not (loopback(host.name) or host.name in self._names):
            raise ForeignOrigin("the Host is neither loopback nor a name that the setting `manager_hosts` lists")
        origin = exchange.header(b"origin")
        if origin is not None and not same_origin(origin.decode("latin-1"), host, exchange.secure):
            raise ForeignOrigin("the Origin is not this manager's own")


def same_origin(origin: str, host: Authority, secure: bool) -> bool:
    """Whether ``origin`` names the host that was asked. A plain request may have come through a proxy that speaks TLS, so its scheme may be
    either; one that came over TLS can only be of an https page."""
    scheme, _, rest = origin.lower().partition("://")
    if scheme not in DEFAULT_PORTS or (secure and scheme != "https"):
        return False
    came = authority(rest)
    if came is None or came.name != host.name:
        return False
    default = DEFAULT_PORTS[scheme]
    return (came.port or default) == (host.port or default)
