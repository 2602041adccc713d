"""What ``[registry.zk]`` and the URL may say."""

import os
import re
from collections.abc import Mapping
from typing import Annotated, Any, Literal, NamedTuple, get_type_hints

import msgspec
from msgspec import Meta

SCHEME = "zk"
DEFAULT_CHROOT = "/psubd"
DEFAULT_PORT = 2181
USERNAME_VARIABLE, PASSWORD_VARIABLE = "PSUBD_ZOOKEEPER_USERNAME", "PSUBD_ZOOKEEPER_PASSWORD"
KEY_PASSWORD_VARIABLE = "PSUBD_ZOOKEEPER_TLS_KEY_PASSWORD"  # noqa: S105 - the name, not the value
WHERE = f"set {USERNAME_VARIABLE} and {PASSWORD_VARIABLE}, or username and password in the file"

FORM = "zk://host:port,host:port/chroot"
CHROOT = re.compile(r"(/(?!\.{1,2}(?:/|\Z))[!-.0-~]+)+")
"""Parts of printable ASCII; ZooKeeper refuses ``.`` and ``..``."""


class ZooKeeperSettings(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """``[registry.zk]``.

    :ivar session_timeout_ms: what is asked for; the servers grant what their minSessionTimeout and maxSessionTimeout allow. A node that is cut off
        serves its groups until a second before that has passed, and others take them over after it.
    :ivar auth_scheme: how ``username`` and ``password`` are shown: ``digest`` is ZooKeeper's own, ``sasl`` is DIGEST-MD5 and needs the package
        pure-sasl. With either, what psubd writes can be read and written with the same credentials only.
    :ivar tls: the servers' ``secureClientPort``.
    """

    session_timeout_ms: Annotated[int, Meta(ge=2_000, le=120_000)] = 10_000
    username: str | None = None
    password: str | None = None
    auth_scheme: Literal["digest", "sasl"] = "digest"
    tls: bool = False
    tls_ca_file: str | None = None
    tls_certificate_file: str | None = None
    tls_key_file: str | None = None
    tls_key_password: str | None = None
    tls_check_hostname: bool = True

    def __repr__(self) -> str:
        return f"<ZooKeeperSettings tls={self.tls}>"


class Place(NamedTuple):
    """``hosts`` are host:port; ``chroot`` begins with a slash and ends without."""

    hosts: tuple[str, ...]
    chroot: str

    @property
    def shown(self) -> str:
        return f"{SCHEME}://{','.join(self.hosts)}{self.chroot}"


def convert(table: Mapping[str, Any], environ: Mapping[str, str] | None = None) -> ZooKeeperSettings:
    """The settings of the table, credentials of the environment over the file's.

    :raises msgspec.ValidationError: names the first setting that is wrong; `mistakes` has them all.
    """
    return msgspec.convert(told(table, environ), ZooKeeperSettings)


def told(table: Mapping[str, Any], environ: Mapping[str, str] | None = None) -> dict[str, Any]:
    """The table with the environment's credentials."""
    environ = os.environ if environ is None else environ
    named = {"username": USERNAME_VARIABLE, "password": PASSWORD_VARIABLE, "tls_key_password": KEY_PASSWORD_VARIABLE}
    return {**table, **{name: environ[variable] for name, variable in named.items() if environ.get(variable)}}


def place(url: str) -> Place:
    """The servers and the chroot that the URL names. :raises ValueError: with what is wrong, without credentials."""
    scheme, _, rest = url.partition("://")
    if scheme != SCHEME or not rest:
        raise ValueError(f"write it as {FORM}")
    if "@" in rest:
        raise ValueError(f"credentials do not belong into the URL; {WHERE}")
    hosts, slash, path = rest.partition("/")
    chroot = f"{slash}{path}".rstrip("/") or DEFAULT_CHROOT
    if any(character in rest for character in "?#") or CHROOT.fullmatch(chroot) is None or chroot == "/zookeeper":
        raise ValueError(f"{chroot!r} is no path for psubd; write {FORM}; settings go into [registry.{SCHEME}]")
    return Place(tuple(address(part) for part in hosts.split(",")), chroot)


def address(text: str) -> str:
    """``text`` if it is ``host:port`` (``[...]:port`` for IPv6; port 2181 where none is named). :raises ValueError:"""
    host, colon, port = text.rpartition(":")
    if not colon or text.endswith("]"):
        host, port = text, str(DEFAULT_PORT)
    sane = port.isascii() and port.isdecimal() and 0 < int(port) < 65536
    if not sane or re.fullmatch(r"\[[0-9A-Fa-f:.]+\]|[A-Za-z0-9._-]+", host) is None:
        raise ValueError(f"{text!r} is no server's address; write host:port")
    return f"{host}:{port}"


def mistakes(table: Mapping[str, Any], environ: Mapping[str, str] | None = None) -> list[str]:
    """Every mistake in the table, a line each."""
    given = told(table, environ)
    hints = get_type_hints(ZooKeeperSettings, include_extras=True)
    found, sound = [], {}
    for name, value in given.items():
        if name not in hints:
            found.append(f"{name}: there is no such setting; there are {', '.join(hints)}")
            continue
        try:
            sound[name] = msgspec.convert(value, hints[name])
        except msgspec.ValidationError as wrong:
            found.append(f"{name}: {wrong}")
    settings = ZooKeeperSettings(**sound)
    return [f"registry.{SCHEME}.{line}" for line in (*found, *_credentials(settings), *_tls(settings))]


def _credentials(settings: ZooKeeperSettings) -> list[str]:
    found = []
    if bool(settings.username) != bool(settings.password):
        found.append(f"username, password: one is there without the other; {WHERE}")
    if settings.username and ":" in settings.username:
        found.append("username: a colon cannot be in it: ZooKeeper ends the name there")
    if settings.auth_scheme == "sasl":
        if not settings.username:
            found.append(f"auth_scheme: sasl needs a username and a password; {WHERE}")
        if not _has_sasl():
            found.append("auth_scheme: sasl needs the package pure-sasl; install it, or use digest")
    return found


def _has_sasl() -> bool:
    from kazoo.protocol import connection  # here, so that listing the settings does not import the driver

    return bool(connection.PURESASL_AVAILABLE)


def _tls(settings: ZooKeeperSettings) -> list[str]:
    named = {name: getattr(settings, name) for name in ("tls_ca_file", "tls_certificate_file", "tls_key_file")}
    found = [f"{name}: {path!r} cannot be read" for name, path in named.items() if path is not None and not os.access(path, os.R_OK)]
    if any(named.values()) and not settings.tls:
        found.append("tls_ca_file, tls_certificate_file, tls_key_file: take no effect without tls = true")
    if (settings.tls_key_file is None) != (settings.tls_certificate_file is None):
        found.append("tls_certificate_file, tls_key_file: one needs the other")
    return found
