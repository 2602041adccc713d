"""Every way to show credentials, and what is refused."""

import base64
from typing import Any

from twisted.trial.unittest import SynchronousTestCase

from psubd.endpoints.credentials import BASIC, BASIC_OR_BEARER, Callers, Shown, read
from psubd.errors import BadCredentials, BadHeader, BadParameter
from psubd.model import Credentials
from psubd.testing.exchange import FakeExchange

ID, PUBKEY, SECRET, SUBKEY = "shop", "pk_p", "ps_s", "sk_k"


def basic(text: str | bytes) -> tuple[str, str]:
    raw = text.encode() if isinstance(text, str) else text
    return ("Authorization", "Basic " + base64.b64encode(raw).decode())


def shown(*headers: tuple[str, str], query: bytes = b"") -> Shown:
    return read(FakeExchange(headers=headers, query=query), BASIC)


class WayTests(SynchronousTestCase):
    def test_headers(self) -> None:
        """pubkey and secret to publish, subkey to subscribe."""
        self.assertEqual(shown(("pubkey", PUBKEY), ("secret", SECRET)), Shown(publish=Credentials(PUBKEY, SECRET)))
        self.assertEqual(shown(("subkey", SUBKEY)), Shown(subscribe=Credentials(subkey=SUBKEY)))

    def test_basic_pairs(self) -> None:
        """An application id or a pubkey, with a secret or a subkey: the key's prefix says for what."""
        for identity in (ID, PUBKEY):
            self.assertEqual(shown(basic(f"{identity}:{SECRET}")), Shown(publish=Credentials(identity, SECRET)))
            self.assertEqual(shown(basic(f"{identity}:{SUBKEY}")), Shown(subscribe=Credentials(identity, subkey=SUBKEY)))

    def test_basic_triple(self) -> None:
        """Three parts show both; each route takes what it needs."""
        found = shown(basic(f"{PUBKEY}:{SECRET}:{SUBKEY}"))
        self.assertEqual(found, Shown(Credentials(PUBKEY, SECRET), Credentials(PUBKEY, subkey=SUBKEY)))

    def test_bearer(self) -> None:
        """A subkey alone."""
        self.assertEqual(shown(("authorization", f"Bearer {SUBKEY}")), Shown(subscribe=Credentials(subkey=SUBKEY)))

    def test_scheme(self) -> None:
        """The scheme's case does not matter, nor do more blanks behind it."""
        self.assertEqual(shown(("authorization", f"bEARER   {SUBKEY}")).subscribe, Credentials(subkey=SUBKEY))

    def test_nothing(self) -> None:
        """No credentials, or half of them, show nothing."""
        for headers in ((), (("pubkey", PUBKEY),), (("secret", SECRET),)):
            self.assertEqual(shown(*headers), Shown())

    def test_not_in_repr(self) -> None:
        """What was shown is not in its repr."""
        self.assertNotIn(SECRET, repr(shown(basic(f"{PUBKEY}:{SECRET}:{SUBKEY}"))))


class RefusalTests(SynchronousTestCase):
    def test_two_kinds(self) -> None:
        """Two kinds in one request are 401, whichever would have been right."""
        pairs = [("pubkey", PUBKEY), ("secret", SECRET)]
        for headers in (
            [*pairs, ("subkey", SUBKEY)],
            [("pubkey", PUBKEY), ("subkey", SUBKEY)],
            [*pairs, basic(f"{PUBKEY}:{SECRET}")],
            [("subkey", SUBKEY), ("authorization", f"Bearer {SUBKEY}")],
            [("secret", SECRET), ("authorization", f"Bearer {SUBKEY}")],
        ):
            self.assertRaises(BadCredentials, shown, *headers)

    def test_twice(self) -> None:
        """A credential header sent twice is malformed, even with one value."""
        for header in (("pubkey", PUBKEY), ("secret", SECRET), ("subkey", SUBKEY), basic("a:b")):
            self.assertRaises(BadHeader, shown, header, header)

    def test_basic_malformed(self) -> None:
        """Base64 that is not strict, one or four parts, empty parts, bytes that no id or key has."""
        good = base64.b64encode(b"shop:ps_12").decode()
        self.assertTrue(good.endswith("=="))
        for value in (good.rstrip("="), good[:-1], good + "=", " ".join(good), good + " x", "", "!!!!", "c2hvcDpwc18xMj=="):
            self.assertRaises(BadCredentials, shown, ("authorization", f"Basic {value}"))
        for text in ("shop", ":", "shop:", f":{SECRET}", "a:b:c:d", "a::c", "a:b:", "shop:ps_\n", "shop:ps_\0", "shop:\u00e9", b"shop:\xff"):
            self.assertRaises(BadCredentials, shown, basic(text))

    def test_other_schemes(self) -> None:
        """Other schemes, and a scheme without anything behind it."""
        for value in ("Digest x", "Bearer", "Bearer ", "Basic", "", "Token sk_k", SUBKEY):
            self.assertRaises(BadCredentials, shown, ("authorization", value))

    def test_malformed_headers(self) -> None:
        """Empty or not printable ASCII."""
        for value in ("", "sk_\u00e9", "sk_\x01"):
            self.assertRaises(BadCredentials, shown, ("subkey", value))
            self.assertRaises(BadCredentials, shown, ("pubkey", PUBKEY), ("secret", value))

    def test_in_the_query(self) -> None:
        """Credentials in a query are 400, also beside good ones and however they are spelled; they are not repeated in the answer."""
        for query in (
            b"subkey=sk_hidden",
            b"batchSize=1&secret=sk_hidden",
            b"%73ubkey=sk_hidden",
            b"SubKey=sk_hidden",
            b"access_token=sk_hidden",
            b"pubkey",
            b"authorization=sk_hidden",
        ):
            refused = self.assertRaises(BadParameter, shown, ("subkey", SUBKEY), query=query)
            self.assertNotIn("sk_hidden", refused.detail)

    def test_never_echoed(self) -> None:
        """A refusal does not repeat what was shown."""
        for headers in ([basic("shop:ps_hidden:sk_hidden:x")], [("authorization", "sk_hidden")], [("secret", "hidden\x01"), ("pubkey", "x")]):
            refused = self.assertRaises(BadCredentials, shown, *headers)
            self.assertNotIn("hidden", refused.detail)


class DeafGate:
    """Knows nobody; remembers who was asked for."""

    def __init__(self) -> None:
        self.asked: list[tuple[str, Credentials]] = []

    def publisher(self, shown: Credentials) -> Any:
        self.asked.append(("publish", shown))
        raise BadCredentials("unknown")

    def subscriber(self, shown: Credentials) -> Any:
        self.asked.append(("subscribe", shown))
        raise BadCredentials("unknown")


class RouteTests(SynchronousTestCase):
    def setUp(self) -> None:
        self.gate: Any = DeafGate()
        self.callers = Callers(self.gate)

    def refused(self, who: Any, *headers: tuple[str, str]) -> BadCredentials:
        error: BadCredentials = self.assertRaises(BadCredentials, who, FakeExchange(headers=headers))
        return error

    def test_challenges(self) -> None:
        """A 401 says what the route takes: Basic to publish, Basic and Bearer to subscribe; also where the gate refused."""
        ways: list[tuple[Any, str]] = [
            (self.callers.publisher, BASIC),
            (self.callers.subscriber, BASIC_OR_BEARER),
            (self.callers.either, BASIC_OR_BEARER),
        ]
        for who, challenge in ways:
            for headers in ([], [basic(f"{PUBKEY}:{SECRET}:{SUBKEY}")], [("authorization", "Digest x")], [("authorization", "Basic x")]):
                self.assertEqual(self.refused(who, *headers).headers, {"www-authenticate": challenge})

    def test_never_a_fallback(self) -> None:
        """A kind that the route does not take is not tried as another."""
        self.refused(self.callers.publisher, ("subkey", SUBKEY))
        self.refused(self.callers.publisher, ("authorization", f"Bearer {SUBKEY}"))
        self.refused(self.callers.publisher, basic(f"{ID}:{SUBKEY}"))
        self.refused(self.callers.subscriber, ("pubkey", PUBKEY), ("secret", SECRET))
        self.refused(self.callers.subscriber, basic(f"{ID}:{SECRET}"))
        self.assertEqual(self.gate.asked, [])

    def test_either(self) -> None:
        """A tenant's routes take the secret or the subkey; where one header shows both, the subkey and nothing else."""
        self.refused(self.callers.either, ("pubkey", PUBKEY), ("secret", SECRET))
        self.refused(self.callers.either, ("subkey", SUBKEY))
        self.refused(self.callers.either, basic(f"{PUBKEY}:{SECRET}:{SUBKEY}"))
        expected = [
            ("publish", Credentials(PUBKEY, SECRET)),
            ("subscribe", Credentials(subkey=SUBKEY)),
            ("subscribe", Credentials(PUBKEY, subkey=SUBKEY)),
        ]
        self.assertEqual(self.gate.asked, expected)
