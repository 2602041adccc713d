"""Under which address a client reaches this node: what ``base_uri`` begins with."""

import ipaddress
import re
from collections.abc import Iterable, Iterator

from psubd.endpoints.confluent.settings import ConfluentSettings
from psubd.errors import BadHeader
from psubd.interfaces import IExchange

HOST = re.compile(r"(?P<name>\[[0-9A-Fa-f:.]{2,45}\]|[A-Za-z0-9._-]{1,253})(?::(?P<port>[0-9]{1,5}))?")
PORT = re.compile(r"[0-9]{1,5}")
SCHEMES = {"http": "80", "https": "443"}
PATH = re.compile(r"(?:/[A-Za-z0-9._~!$&'()*+,;=:@%-]*){1,32}")
PAIR = re.compile(r'\s*([A-Za-z]+)\s*=\s*(?:"((?:[^"\\]|\\.)*)"|([^;,"\s]+))\s*(;|,|\Z)')


class Base:
    """The beginning of all URLs of one node, as its clients see it."""

    def __init__(self, settings: ConfluentSettings) -> None:
        self._fixed = settings.base_url.rstrip("/")
        self._trusted = [ipaddress.ip_network(network, strict=False) for network in settings.trusted_proxies]

    def of(self, exchange: IExchange) -> str:
        """``scheme://host[:port][/prefix]``, without a slash at its end.

        What proxies said counts only where the one that came to us is trusted: anybody may send these lines. A value that cannot be is passed over.

        :raises BadHeader: the request names no host.
        """
        if self._fixed:
            return self._fixed
        said = said_by_proxies(exchange) if self._trusts(exchange.client) else {}
        scheme = said["proto"] if said.get("proto") in SCHEMES else "https" if exchange.secure else "http"
        host = HOST.fullmatch(said.get("host", "")) or HOST.fullmatch((exchange.header(b"host") or b"").decode("latin-1"))
        if host is None:
            raise BadHeader("host: there is none, or it is no host; base_uri is made of it")
        return f"{scheme}://{with_port(host, said, scheme)}{prefix(said, exchange.path)}"

    def _trusts(self, client: str) -> bool:
        try:
            address = ipaddress.ip_address(client)
        except ValueError:  # a UNIX socket's peer has none
            return False
        return any(address in network for network in self._trusted)


def with_port(host: "re.Match[str]", said: dict[str, str], scheme: str) -> str:
    """The host, with a proxy's own port where that is another than the scheme's."""
    port = said.get("port", "")
    if host["port"] or PORT.fullmatch(port) is None or port == SCHEMES[scheme] or int(port) > 65535:
        return host[0]
    return f"{host[0]}:{port}"


def prefix(said: dict[str, str], path: str) -> str:
    """What a proxy has in front of our paths. Some say the whole path that they were asked for, which ends with ours."""
    found = said.get("path", "")
    if PATH.fullmatch(found) is None:
        return ""
    return found.rstrip("/").removesuffix(path.rstrip("/")).rstrip("/")


def said_by_proxies(exchange: IExchange) -> dict[str, str]:
    """``proto``, ``host``, ``port`` and ``path``, each as the nearest proxy said it; `Forwarded` (RFC 7239) goes before ``X-Forwarded-*``."""
    said: dict[str, str] = {}
    names = {b"x-forwarded-proto": "proto", b"x-forwarded-host": "host", b"x-forwarded-port": "port"}
    names |= {b"x-forwarded-path": "path", b"x-forwarded-prefix": "path"}
    for line, value in exchange.headers:
        if line in names:
            said[names[line]] = value.decode("latin-1").rpartition(",")[2].strip()
    forwarded = b",".join(value for line, value in exchange.headers if line == b"forwarded").decode("latin-1")
    said.update(last_of(pairs(forwarded)))
    return {name: value.lower() if name == "proto" else value for name, value in said.items()}


def last_of(found: Iterable[tuple[str, str, bool]]) -> dict[str, str]:
    """``proto`` and ``host`` of the last element that says either: the nearest proxy's."""
    said: dict[str, str] = {}
    own: dict[str, str] = {}
    for name, value, ends in found:
        if name in ("proto", "host"):
            own[name] = value
        if ends:
            said, own = own or said, {}
    return own or said


def pairs(text: str) -> Iterator[tuple[str, str, bool]]:
    """The pairs of a ``Forwarded`` line: name in lower case, value, whether its element ends with it. Ends at what is no pair."""
    at = 0
    while at < len(text):
        found = PAIR.match(text, at)
        if found is None:
            return
        quoted = found[2]
        value = found[3] if quoted is None else re.sub(r"\\(.)", r"\1", quoted)
        yield found[1].lower(), value, found[4] != ";"
        at = found.end()
