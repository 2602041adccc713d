"""Who calls: every way to show credentials (contract, section 1). One kind a request, never a fallback; a secret is never echoed."""

from collections.abc import Callable, Iterable
from urllib.parse import unquote_to_bytes

import msgspec
from twisted.python.failure import Failure

from psubd.endpoints.coding import strict_base64
from psubd.errors import BadCredentials, BadHeader, BadParameter
from psubd.interfaces import IExchange, IGate
from psubd.model import Credentials, Grant

BASIC = 'Basic realm="psubd", charset="UTF-8"'
BASIC_OR_BEARER = f'{BASIC}, Bearer realm="psubd"'

SHOWN_IN = frozenset((b"pubkey", b"secret", b"subkey", b"authorization"))
NOT_IN_QUERY = frozenset((b"pubkey", b"secret", b"subkey", b"authorization", b"access_token"))

TO_PUBLISH = "show pubkey and secret, or Authorization: Basic <application id or pubkey>:<secret>"
TO_SUBSCRIBE = "show subkey, or Authorization: Bearer <subkey>, or Basic <application id or pubkey>:<subkey>"


class Shown(msgspec.Struct, frozen=True):
    """What a request showed, for each of the two trades; None: nothing for it."""

    publish: Credentials | None = None
    subscribe: Credentials | None = None

    def __repr__(self) -> str:
        return "<Shown>"


class Callers:
    """Turns what a request shows into a grant. All raise BadCredentials with the challenge that belongs to the route, and BadParameter
    for credentials in the query."""

    def __init__(self, gate: IGate) -> None:
        self._gate = gate

    def publisher(self, exchange: IExchange) -> Grant:
        """Who publishes."""
        return self.publishing(shown(exchange, BASIC).publish)

    def publishing(self, shown: Credentials | None) -> Grant:
        """Whose credentials to publish with these are."""
        return known(self._gate.publisher, shown, BASIC, TO_PUBLISH)

    def subscriber(self, exchange: IExchange) -> Grant:
        """Who subscribes."""
        return known(self._gate.subscriber, shown(exchange, BASIC_OR_BEARER).subscribe, BASIC_OR_BEARER, TO_SUBSCRIBE)

    def either(self, exchange: IExchange) -> Grant:
        """Whose tenant's route it is, with either credential; where one header shows both, the subkey counts."""
        found = shown(exchange, BASIC_OR_BEARER)
        if found.subscribe is not None:
            return known(self._gate.subscriber, found.subscribe, BASIC_OR_BEARER, TO_SUBSCRIBE)
        return known(self._gate.publisher, found.publish, BASIC_OR_BEARER, f"{TO_PUBLISH}; or {TO_SUBSCRIBE}")


def shown(exchange: IExchange, challenge: str) -> Shown:
    """As `read`, once a head."""
    found: Shown | None = exchange.kept.get("shown")
    if found is None:
        found = exchange.kept["shown"] = read(exchange, challenge)
    return found


def known(look_up: Callable[[Credentials], Grant], shown: Credentials | None, challenge: str, usage: str) -> Grant:
    """The grant, or BadCredentials with the route's challenge."""
    if shown is None:
        raise BadCredentials(f"no credentials for this route; {usage}", challenge)
    try:
        return look_up(shown)
    except BadCredentials as refused:
        refused.challenge = challenge
        raise


def challenged(failure: Failure) -> Failure:
    """A subscriber's key that ended while its request waited: the 401 says what the route takes."""
    if isinstance(failure.value, BadCredentials):
        failure.value.challenge = BASIC_OR_BEARER
    return failure


def read(exchange: IExchange, challenge: str) -> Shown:
    """What the request shows. :raises BadCredentials: two kinds at once, or one that cannot be read. :raises BadParameter: in the query."""
    if exchange.raw_query:
        refuse_in_query(exchange.raw_query)
    sent = single_lines(exchange.headers)
    named = [name for name in (b"pubkey", b"secret", b"subkey") if name in sent]
    authorization = sent.get(b"authorization")
    if authorization is not None:
        if named:
            raise BadCredentials("two kinds of credentials in one request; show one", challenge)
        return from_authorization(authorization, challenge)
    if b"subkey" in sent:
        if len(named) > 1:
            raise BadCredentials("two kinds of credentials in one request; show pubkey and secret, or subkey", challenge)
        return Shown(subscribe=Credentials(subkey=text(sent[b"subkey"], challenge)))
    if len(named) == 2:
        return Shown(publish=Credentials(text(sent[b"pubkey"], challenge), text(sent[b"secret"], challenge)))
    return Shown()


def from_authorization(value: bytes, challenge: str) -> Shown:
    """Basic with two or three parts, or Bearer with a subkey."""
    scheme, _, rest = value.partition(b" ")
    rest = rest.strip(b" ")
    match scheme.lower():
        case b"bearer":
            return Shown(subscribe=Credentials(subkey=text(rest, challenge)))
        case b"basic":
            return from_basic(basic_parts(rest, challenge), challenge)
    raise BadCredentials("Authorization: only Basic and Bearer are known", challenge)


def basic_parts(encoded: bytes, challenge: str) -> list[str]:
    """The parts of a Basic credential, each not empty."""
    try:
        parts = text(strict_base64(encoded), challenge).split(":")
    except ValueError:
        raise BadCredentials("Authorization: Basic needs strict base64, padded", challenge) from None
    if len(parts) not in (2, 3) or not all(parts):
        raise BadCredentials("Authorization: Basic needs <id or pubkey>:<secret or subkey>, or <pubkey>:<secret>:<subkey>", challenge)
    return parts


def from_basic(parts: list[str], challenge: str) -> Shown:
    """Two parts show what the key's prefix says; three show both, and each route takes what it needs."""
    identity, key = parts[:2]
    if len(parts) == 3:
        return Shown(Credentials(identity, key), Credentials(identity, subkey=parts[2]))
    if key.startswith("sk_"):
        return Shown(subscribe=Credentials(identity, subkey=key))
    return Shown(publish=Credentials(identity, key))


def text(value: bytes, challenge: str) -> str:
    """A credential as text: printable ASCII, since ids and keys are."""
    if not value or not value.isascii() or not value.decode("ascii").isprintable():
        raise BadCredentials("the credentials are empty, or not printable ASCII", challenge)
    return value.decode("ascii")


def single_lines(lines: Iterable[tuple[bytes, bytes]]) -> dict[bytes, bytes]:
    """The field lines that show credentials. :raises BadHeader: one was sent twice."""
    found: dict[bytes, bytes] = {}
    for name, value in lines:
        if name in SHOWN_IN:
            if name in found:
                raise BadHeader(f"{name.decode()}: sent twice; send it once")
            found[name] = value
    return found


def refuse_in_query(raw: bytes) -> None:
    """:raises BadParameter: a credential stands in the query, where logs and histories keep it."""
    for part in raw.split(b"&"):
        name = unquote_to_bytes(part.partition(b"=")[0]).lower()
        if name in NOT_IN_QUERY:
            raise BadParameter(
                f"{name.decode()}: credentials are not taken from the query; send them as headers, and make new ones: this one was exposed"
            )
