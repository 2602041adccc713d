"""What lies beneath the nodes' connections: loopback in the clear, or TLS where both ends show a certificate."""

import re
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import msgspec
from twisted.internet.endpoints import HostnameEndpoint, wrapClientTLS
from twisted.internet.interfaces import IProtocolFactory, IStreamClientEndpoint
from twisted.internet.ssl import Certificate, CertificateOptions, PrivateCertificate, optionsForClientTLS, trustRootFromCertificates
from twisted.protocols.tls import TLSMemoryBIOFactory

from psubd.config import Listener, loopback

DIAL_S = 5
PEM = re.compile(rb"-----BEGIN CERTIFICATE-----.+?-----END CERTIFICATE-----\s*", re.DOTALL)
PLAIN = frozenset(("tcp", "tcp6"))


class Tls(msgspec.Struct, frozen=True):
    """Paths of PEM files.

    :ivar certificate: this node's, with what lies between it and the authority after it; it names the host of the node's peer address.
    :ivar key: its private key. :ivar authority: whose certificates nodes have; one or more.
    """

    certificate: str
    key: str
    authority: str


class Papers:
    """The files of a `Tls`, read. :raises ValueError: they are not what they are to be; the text says which. :raises OSError: one cannot be read."""

    def __init__(self, tls: Tls) -> None:
        own, authorities, key = certificates(tls.certificate), certificates(tls.authority), Path(tls.key).read_bytes()
        try:
            self.own = PrivateCertificate.loadPEM(own[0] + key)
            self.chain = [Certificate.loadPEM(pem).original for pem in own[1:]]
            self.trust = trustRootFromCertificates([Certificate.loadPEM(pem) for pem in authorities])
            self.listening = self._listening()
        except Exception as refused:  # noqa: BLE001 - OpenSSL's own kind, whose text is a list of tuples
            raise ValueError(f"{tls.key} does not hold the private key of {tls.certificate}, or one of the files is damaged ({refused})") from None

    def _listening(self) -> CertificateOptions:
        return CertificateOptions(
            privateKey=self.own.privateKey.original, certificate=self.own.original, extraCertChain=self.chain, trustRoot=self.trust
        )

    def dialling(self, host: str) -> Any:
        """For a connection to ``host``, whose certificate must name it."""
        return optionsForClientTLS(host, trustRoot=self.trust, clientCertificate=self.own, extraCertificateOptions={"extraCertChain": self.chain})


class Line:
    """:param tls: None: nodes on this host only. :raises ValueError, OSError: as `Papers`."""

    def __init__(self, reactor: Any, tls: Tls | None = None) -> None:
        self._reactor = reactor
        self._papers = None if tls is None else Papers(tls)

    def dial(self, address: str) -> IStreamClientEndpoint:
        """The way to a node's peer address. :raises ValueError: it is none, or lies on another host and there is no TLS."""
        host, port = place_of(address)
        endpoint: IStreamClientEndpoint = HostnameEndpoint(self._reactor, host.encode("idna") if not host.isascii() else host, port, timeout=DIAL_S)
        if self._papers is not None:
            return wrapClientTLS(self._papers.dialling(host), endpoint)
        if not loopback(host):
            raise ValueError(f"{address} lies on another host, and nodes talk to other hosts over TLS only")
        return endpoint

    def guard(self, factory: IProtocolFactory) -> IProtocolFactory:
        """What the peer port listens with, for `psubd.peers.mesh.Mesh.door`."""
        if self._papers is None:
            return factory
        guarded: IProtocolFactory = TLSMemoryBIOFactory(self._papers.listening, False, factory)
        return guarded


def certificates(path: str) -> Sequence[bytes]:
    """The certificates of a PEM file. :raises ValueError: there is none. :raises OSError:"""
    found = PEM.findall(Path(path).read_bytes())
    if not found:
        raise ValueError(f"{path} holds no certificate in PEM")
    return [pem if pem.endswith(b"\n") else pem + b"\n" for pem in found]


def place_of(address: str) -> tuple[str, int]:
    """Host and port of "host:port"; an IPv6 host stands in brackets. :raises ValueError: it is none."""
    host, _, port = address.rpartition(":")
    if host.startswith("[") and host.endswith("]"):
        host = host[1:-1]
    elif ":" in host:
        host = ""
    if not host or not (port.isascii() and port.isdecimal()) or not 0 < int(port) < 65536:
        raise ValueError(f"{address!r} is no address; write it as host:port, as 10.0.0.5:9092 or [fd00::5]:9092")
    return host, int(port)


def advertised(description: str, port: int, address: str) -> str:
    """What other nodes are told of where this one is reached: ``address`` where it is set, else the interface that the endpoint names, and the
    ``port`` that it listens on. :raises ValueError: the endpoint names no interface."""
    if address:
        return address
    host = interface_of(description)
    if not host:
        raise ValueError(f"{description!r} names no interface, so that other nodes cannot be told where to reach it; set peer_address to host:port")
    return f"[{host}]:{port}" if ":" in host else f"{host}:{port}"


def interface_of(description: str) -> str:
    """The interface of a tcp or tcp6 endpoint description; empty: every one."""
    parts = [re.sub(r"\\(.)", r"\1", part) for part in re.split(r"(?<!\\):", description)]
    named = [part.partition("=")[2] for part in parts if part.startswith("interface=")]
    host = named[0] if named else ""
    return "" if host in ("0.0.0.0", "::") else host  # noqa: S104 - compared with, not bound to


def peer_mistakes(peer: Sequence[str], address: str, tls: Tls | None) -> list[str]:
    """Every mistake in the settings of the peer port, a line each, the setting's name first. Reads TLS's files."""
    return [
        *(mistake for description in peer for mistake in endpoint_mistakes(description, tls)),
        *address_mistakes(peer, address, tls),
        *tls_mistakes(tls),
    ]


def endpoint_mistakes(description: str, tls: Tls | None) -> list[str]:
    kind = description.partition(":")[0]
    if kind not in PLAIN:
        return [f"peer: {description!r}: nodes reach each other over tcp: or tcp6:; for TLS set peer_tls, so that both ends show a certificate"]
    if tls is None and Listener.of(description).exposed:
        return [
            f"peer: {description!r} takes nodes of other hosts in the clear; set peer_tls (certificate, key, authority), "
            "or bind it to loopback (interface=127.0.0.1)"
        ]
    return []


def address_mistakes(peer: Sequence[str], address: str, tls: Tls | None) -> list[str]:
    if not address:
        return (
            [f"peer_address: {peer[0]!r} names no interface; write host:port as other nodes reach it"] if peer and not interface_of(peer[0]) else []
        )
    if not peer:
        return ["peer_address: there is no peer port to reach; set peer too"]
    try:
        host, _ = place_of(address)
    except ValueError as refused:
        return [f"peer_address: {refused}"]
    if tls is None and not loopback(host):
        return [f"peer_address: {address!r} lies on another host for other nodes, which come over TLS only; set peer_tls"]
    return []


def tls_mistakes(tls: Tls | None) -> list[str]:
    if tls is None:
        return []
    try:
        Papers(tls)
    except OSError as refused:
        return [f"peer_tls: {refused.filename}: {refused.strerror or refused}"]
    except ValueError as refused:
        return [f"peer_tls: {refused}"]
    return []
