"""Lease tokens: read again what was written, and nothing else."""

from base64 import urlsafe_b64decode, urlsafe_b64encode
from random import Random

import msgspec
from hypothesis import given
from hypothesis import strategies as st
from twisted.trial.unittest import SynchronousTestCase

from psubd.interfaces import Delete, Plan, Put
from psubd.model import Group, GroupTopic
from psubd.services.signet import Signet
from psubd.services.tokens import PURPOSE, Token, Tokens, Whereabouts, tag_of
from psubd.testing.clock import FakeClock
from psubd.testing.registry import MemoryRegistry

BIG = (1 << 64) - 1
SERIALS = st.integers(0, (1 << 63) - 1) | st.integers(0, (1 << 103) - 1)
ALPHABET = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789-_"


def opened(clock):
    registry = MemoryRegistry(clock)
    registry.start()
    signet = Signet(registry)
    signet.open()
    return signet


class TokensTestCase(SynchronousTestCase):
    def setUp(self):
        self.signet = opened(FakeClock())
        self.tokens = Tokens(self.signet)

    def write(self, token):
        return self.tokens.write(self.tokens.prefix(token.tag, token.partition, token.since), token.offset, token.serial)


class ReadTests(TokensTestCase):
    @given(st.builds(Token, st.binary(min_size=8, max_size=8), st.integers(0, (1 << 32) - 1), st.integers(0, BIG), st.integers(0, BIG), SERIALS))
    def test_what_was_written(self, token):
        """Whatever the numbers, a token says what it was written with, in at most 200 URL-safe characters."""
        text = self.write(token)
        self.assertEqual(self.tokens.read(text), token)
        self.assertLessEqual(len(text), 200)
        self.assertLessEqual(set(text), set(ALPHABET))

    def test_no_character_may_differ(self):
        """A token with any one character changed, left out or put in is none."""
        text = self.write(Token(b"abcdefgh", 3, 41, 7, (9 << 40) + 1))
        for place in range(len(text)):
            for other in {*ALPHABET, "+", "/", "=", " ", "\n", "\0", "\xe9", "\ud800", "٣"} - {text[place]}:
                for forged in (text[:place] + other + text[place + 1 :], text[:place] + other + text[place:]):
                    self.assertIsNone(self.tokens.read(forged), forged)
            self.assertIsNone(self.tokens.read(text[:place] + text[place + 1 :]))

    def test_one_text_a_token(self):
        """The same bytes in another spelling are no token: "+" and "/", padding, blanks, line ends."""
        random = Random(5)
        for _ in range(20):
            text = self.write(Token(random.randbytes(8), 1, random.getrandbits(60), 2, 3))
            plain = text.replace("-", "+").replace("_", "/")
            for spelt in {plain, text + "=", text + "==", text + "\n", " " + text, text + "A", text[:-4]} - {text}:
                self.assertIsNone(self.tokens.read(spelt), spelt)

    @given(
        st.text(max_size=100)
        | st.text(alphabet=ALPHABET, min_size=80, max_size=80)
        | st.binary(min_size=60, max_size=60).map(urlsafe_b64encode).map(bytes.decode)
    )
    def test_noise(self, text):
        """Nothing that somebody makes up is a token, and nothing raises."""
        self.assertIsNone(self.tokens.read(text))

    def test_other_secrets_and_purposes(self):
        """Another registry's token is none; nor is a MAC made for something else."""
        token = Token(b"abcdefgh", 0, 1, 2, 3)
        self.assertIsNone(Tokens(opened(FakeClock())).read(self.write(token)))
        plain = urlsafe_b64decode(self.write(token))[:44]
        self.assertEqual(urlsafe_b64encode(plain + self.signet.mac(PURPOSE, plain)).decode(), self.write(token))
        self.assertIsNone(self.tokens.read(urlsafe_b64encode(plain + self.signet.mac(b"letter", plain)).decode()))

    def test_other_formats(self):
        """What a later psubd would write in another format is none for this one."""
        plain = b"L3" + urlsafe_b64decode(self.write(Token(b"abcdefgh", 0, 1, 2, 3)))[2:44]
        self.assertIsNone(self.tokens.read(urlsafe_b64encode(plain + self.signet.mac(PURPOSE, plain)).decode()))


class TagTests(SynchronousTestCase):
    def test_what_makes_a_tag_another(self):
        """A group, a topic, its storage's topic or a binding made again has another tag; a reset, or another topic of the group, keeps it."""
        group, record = Group("shop.a", "shop", 5, 0), GroupTopic("u1", "m1")
        tag = tag_of(group, "orders", record)
        others = [
            tag_of(Group("shop.b", "shop", 5, 0), "orders", record),
            tag_of(Group("shop.a", "shop", 6, 0), "orders", record),
            tag_of(group, "order", record),
            tag_of(group, "orders", GroupTopic("u2", "m1")),
            tag_of(group, "orders", GroupTopic("u1", "m2")),
            tag_of(group, "orders", GroupTopic("u1m", "1")),
            tag_of(Group("shop.", "shop", 5, 0), "orders", record),
        ]
        self.assertEqual(len({tag, *others}), 8)
        self.assertEqual(tag_of(Group("shop.a", "shop", 5, 9, {"x": record}), "orders", GroupTopic("u1", "m1", 77)), tag)
        self.assertEqual(len(tag), 8)


class WhereaboutsTests(SynchronousTestCase):
    def setUp(self):
        self.registry = MemoryRegistry(FakeClock())
        self.registry.start()
        self.record = GroupTopic("u", "m")
        self.put("shop", "orders")
        self.put("shop.a", "orders", "bills")
        self.put("shop-2", "orders")
        self.whereabouts = Whereabouts(self.registry)

    def change(self, *writes):
        self.successResultOf(self.registry.change("test", lambda snapshot, serial: Plan("test", writes)))

    def put(self, name, *topics, serial=1):
        group = Group(name, name.partition(".")[0], serial, 0, dict.fromkeys(topics, self.record))
        self.change(Put(f"/groups/{name}", msgspec.json.encode(group)))

    def tag(self, name, topic, serial=1):
        return tag_of(Group(name, "", serial, 0), topic, self.record)

    def test_finds_its_own(self):
        """Each group's tag is found, for each topic that it stands on."""
        for name, topic in (("shop", "orders"), ("shop.a", "orders"), ("shop.a", "bills")):
            self.assertEqual(self.whereabouts.find("shop", self.tag(name, topic)), (name, topic))
        self.assertIsNone(self.whereabouts.find("shop", self.tag("shop", "bills")))

    def test_nobody_elses(self):
        """Another application's tag is not found, not by a name that begins alike either."""
        self.assertIsNone(self.whereabouts.find("shop", self.tag("shop-2", "orders")))
        self.assertIsNone(self.whereabouts.find("shop-2", self.tag("shop", "orders")))
        self.assertIsNone(self.whereabouts.find("nobody", self.tag("shop", "orders")))
        self.assertEqual(self.whereabouts.find("shop-2", self.tag("shop-2", "orders")), ("shop-2", "orders"))

    def test_follows_the_registry(self):
        """Groups that come, go, are made again or leave a topic are told at once, also after an application was without any."""
        self.whereabouts.find("shop", b"")
        self.put("shop.b", "orders")
        self.assertEqual(self.whereabouts.find("shop", self.tag("shop.b", "orders")), ("shop.b", "orders"))
        self.put("shop.a", "bills")
        self.assertIsNone(self.whereabouts.find("shop", self.tag("shop.a", "orders")))
        self.assertEqual(self.whereabouts.find("shop", self.tag("shop.a", "bills")), ("shop.a", "bills"))
        self.put("shop", "orders", serial=8)
        self.assertIsNone(self.whereabouts.find("shop", self.tag("shop", "orders")))
        self.assertEqual(self.whereabouts.find("shop", self.tag("shop", "orders", serial=8)), ("shop", "orders"))
        self.change(*(Delete(f"/groups/{name}") for name in ("shop", "shop.a", "shop.b")))
        self.assertIsNone(self.whereabouts.find("shop", self.tag("shop", "orders", serial=8)))
        self.put("shop", "orders", serial=20)
        self.assertEqual(self.whereabouts.find("shop", self.tag("shop", "orders", serial=20)), ("shop", "orders"))

    def test_unknown_tags_cost_nothing(self):
        """A tag that is not found makes nobody read the groups again."""
        self.whereabouts.find("shop", b"")
        reads = []
        snapshot = self.registry.snapshot
        self.patch(self.registry, "snapshot", lambda: reads.append(1) or snapshot())
        for _ in range(100):
            self.assertIsNone(self.whereabouts.find("shop", b"12345678"))
        self.assertEqual(reads, [])

    def test_keeps_what_is_there_only(self):
        """Nothing is kept of groups that are gone, nor of applications without groups."""
        for application in ("shop", "shop-2", "nobody", "other"):
            self.whereabouts.find(application, b"")
        for round in range(50):
            self.put("shop.t", "orders", serial=round)
            self.change(Delete("/groups/shop.t"))
        self.change(Delete("/groups/shop-2"))
        self.assertEqual(sorted(self.whereabouts._found), ["shop"])
        self.assertEqual((len(self.whereabouts._found["shop"]), sorted(self.whereabouts._tags)), (3, ["shop", "shop.a"]))

    def test_stops(self):
        """A stopped one hears nothing more."""
        self.whereabouts.find("shop", b"")
        self.whereabouts.stop()
        self.put("shop.b", "orders")
        self.assertIsNone(self.whereabouts.find("shop", self.tag("shop.b", "orders")))
