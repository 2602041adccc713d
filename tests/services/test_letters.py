"""Dead letters: sealed, told from all that is none, cut to fit."""

from hypothesis import given
from hypothesis import strategies as st
from twisted.trial.unittest import SynchronousTestCase

from psubd.errors import RegistryUnavailable, TooLarge
from psubd.model import Message, Record, StoredTopic
from psubd.services.letters import SAID, Origin, letter, own_headers, verify
from psubd.services.partitioner import partition_of
from psubd.services.publisher import stored_size
from psubd.services.signet import Signet
from psubd.testing.clock import FakeClock
from psubd.testing.registry import MemoryRegistry

ORIGIN = Origin("orders", 2, 41, 1_699_999_999_000, "shop.a", 3, "max_attempts", 1_700_000_000_000)

OCTETS = st.none() | st.binary(max_size=12)
HEADERS = st.lists(st.tuples(st.text(max_size=8).filter(lambda name: not name.lower().startswith("psubd.")), OCTETS), max_size=5).map(tuple)
MESSAGES = st.builds(Message, st.just(41), st.just(1), OCTETS, OCTETS, HEADERS)


def topic(limit=1 << 20, partitions=4):
    return StoredTopic("dead", "u", partitions, 1, None, None, "delete", limit)


def lying(record, offset=0):
    """The record as it is read."""
    return Message(offset, record.timestamp, record.key, record.value, record.headers)


class LettersTestCase(SynchronousTestCase):
    def setUp(self):
        self.signet = self.make_signet()

    def make_signet(self):
        registry = MemoryRegistry(FakeClock())
        registry.start()
        signet = Signet(registry)
        signet.open()
        return signet

    def letter(self, message, origin=ORIGIN, stored=None):
        return letter(message, origin, stored or topic(), self.signet)


class LetterTests(LettersTestCase):
    def test_says_where_it_comes_from(self):
        """Value, key and the message's own headers stand, then what the contract names, in ASCII."""
        record = self.letter(Message(41, 5, b"k", b"v", (("a", b"1"), ("a", None))))
        said = dict(record.headers[2:-1])
        self.assertEqual((record.topic, record.value, record.key, record.headers[:2]), ("dead", b"v", b"k", (("a", b"1"), ("a", None))))
        self.assertEqual(
            said,
            {
                "psubd.origin-topic": b"orders",
                "psubd.origin-partition": b"2",
                "psubd.origin-offset": b"41",
                "psubd.origin-timestamp": b"1699999999000",
                "psubd.group": b"shop.a",
                "psubd.attempts": b"3",
                "psubd.reason": b"max_attempts",
                "psubd.time": b"1700000000000",
            },
        )
        self.assertEqual((record.headers[-1][0], len(record.headers[-1][1]), record.timestamp), ("psubd.seal", 22, 1_700_000_000_000))

    def test_partition(self):
        """Letters with a key lie where a publisher would have put them; those without by their origin's partition."""
        for key in (b"", b"k", b"another"):
            self.assertEqual(self.letter(Message(1, 5, key, b"v", ())).partition, partition_of(key, 4))
        self.assertEqual(self.letter(Message(1, 5, None, b"v", ())).partition, 2)
        self.assertEqual(self.letter(Message(1, 5, None, b"v", ()), stored=topic(partitions=2)).partition, 0)

    def test_dies_again(self):
        """A letter that is dead once more says only where it was last; nothing of psubd's is there twice."""
        first = self.letter(Message(41, 5, b"k", b"v", (("a", b"1"), ("psubd.redrive-group", b"shop"), ("Psubd.Seal", b"x"))))
        again = self.letter(lying(first), ORIGIN._replace(topic="dead", group="mailer"))
        names = [name for name, _ in again.headers]
        self.assertEqual(names, ["a", *SAID, "psubd.seal"])
        self.assertEqual(verify(lying(again), self.signet), ORIGIN._replace(topic="dead", group="mailer"))

    def test_no_signet(self):
        """Without the secret none is written: it would be a letter that nobody may redrive."""
        registry = MemoryRegistry(FakeClock())
        self.assertRaises(RegistryUnavailable, letter, Message(1, 5, None, b"v", ()), ORIGIN, topic(), Signet(registry))


class VerifyTests(LettersTestCase):
    @given(MESSAGES)
    def test_own_letters(self, message):
        """What psubd wrote says where it comes from, whatever the message holds."""
        record = self.letter(message)
        self.assertEqual(verify(lying(record, 7), self.signet), ORIGIN)
        self.assertEqual(own_headers(record.headers), message.headers)

    @given(MESSAGES, st.data())
    def test_altered(self, message, data):
        """A letter with anything changed, put in, left out or moved is none."""
        written = lying(self.letter(message))
        headers = written.headers
        place = data.draw(st.integers(0, len(headers) - 1))
        name, value = headers[place]
        changed = data.draw(
            st.sampled_from(
                [
                    (written.key, written.value, (*headers[:place], *headers[place + 1 :])),
                    (written.key, written.value, (*headers[:place], (name, b"x" + (value or b"")), *headers[place + 1 :])),
                    (written.key, written.value, (*headers[:place], (name + "x", value), *headers[place + 1 :])),
                    (written.key, written.value, (*headers[:place], ("new", b"1"), *headers[place:])),
                    (written.key, written.value, (*headers, ("new", b"1"))),
                    (written.key, written.value, (*headers, headers[-1])),
                    (written.key, written.value, tuple(reversed(headers))),
                    ((written.key or b"") + b"x", written.value, headers),
                    (written.key, (written.value or b"") + b"x", headers),
                    (None if written.key is not None else b"", written.value, headers),
                    (written.key, None if written.value is not None else b"", headers),
                ]
            )
        )
        self.assertIsNone(verify(Message(0, 1, *changed), self.signet))

    def test_what_stands_where(self):
        """The seal tells key from value, name from value and one header from two: nothing can be shifted."""
        seals = set()
        messages = [
            Message(0, 1, b"a", b"b", ()),
            Message(0, 1, b"ab", b"", ()),
            Message(0, 1, b"", b"ab", ()),
            Message(0, 1, None, b"ab", ()),
            Message(0, 1, b"ab", None, ()),
            Message(0, 1, b"1:a", b"b", ()),
            Message(0, 1, b"a", b"b", (("c", b"d"),)),
            Message(0, 1, b"a", b"b", (("cd", b""),)),
            Message(0, 1, b"a", b"b", (("cd", None),)),
            Message(0, 1, b"a", b"b", (("c", b"d"), ("", b""))),
            Message(0, 1, b"a", b"b", (("c", b"d1:x1:y"),)),
            Message(0, 1, b"a", b"b", (("c", b"d"), ("x", b"y"))),
        ]
        for message in messages:
            seals.add(self.letter(message).headers[-1][1])
        self.assertEqual(len(seals), len(messages))

    def test_forged(self):
        """Headers that somebody made up, a seal of another registry, and messages that are no letters are none."""
        record = self.letter(Message(41, 5, b"k", b"v", ()))
        stranger = letter(Message(41, 5, b"k", b"v", ()), ORIGIN, topic(), self.make_signet())
        self.assertIsNone(verify(lying(stranger), self.signet))
        for seal in (None, b"", b"A" * 22, record.headers[-1][1] + b"=", record.headers[-1][1][:-1], b"\xff" * 22):
            self.assertIsNone(verify(Message(0, 1, b"k", b"v", (*record.headers[:-1], ("psubd.seal", seal))), self.signet))
        self.assertIsNone(verify(Message(0, 1, b"k", b"v", ()), self.signet))
        self.assertIsNone(verify(Message(0, 1, b"k", b"v", (("psubd.seal", b""),)), self.signet))


class FitTests(LettersTestCase):
    def test_headers_are_cut_from_the_end(self):
        """A letter that is too large keeps as many of the message's headers as fit, from the front; it says how many it lost, under the seal."""
        headers = tuple((f"header-{place}", b"x" * 50) for place in range(40))
        message = Message(41, 5, b"k", b"v" * 1000, headers)
        whole = stored_size(self.letter(message))
        kept = set()
        for limit in range(1600, whole + 40):
            record = self.letter(message, stored=topic(limit))
            self.assertLessEqual(stored_size(record), limit)
            own = own_headers(record.headers)
            self.assertEqual(own, headers[: len(own)])
            said = dict(record.headers).get("psubd.headers-cut", b"0")
            self.assertEqual(int(said), 40 - len(own))
            self.assertEqual(verify(lying(record), self.signet), ORIGIN)
            kept.add(len(own))
        self.assertEqual(self.letter(message, stored=topic(whole)).headers, self.letter(message).headers)
        self.assertIn(40, kept)
        self.assertGreater(len(kept), 30)

    def test_not_more_than_needed(self):
        """What is cut would not have fitted: one header more is over the limit."""
        headers = tuple((f"header-{place}", b"x" * 50) for place in range(40))
        message = Message(41, 5, b"k", b"v" * 1000, headers)
        record = self.letter(message, stored=topic(3000))
        own = own_headers(record.headers)
        more = Record("dead", record.value, record.key, (*headers[: len(own) + 1], *record.headers[len(own) :]))
        self.assertGreater(stored_size(more) + 4, 3000)

    def test_never_fits(self):
        """A letter that is too large without any header of its own is refused, with the topic's limit."""
        message = Message(41, 5, b"k", b"v" * 1000, (("a", b"1"),))
        error = self.assertRaises(TooLarge, self.letter, message, stored=topic(1000))
        self.assertIn("dead", error.detail)

    def test_thousands_of_headers(self):
        """A message of very many headers is cut in one pass."""
        message = Message(41, 5, None, b"", tuple((f"h{place}", b"") for place in range(100_000)))
        record = self.letter(message, stored=topic(100_000))
        self.assertLessEqual(stored_size(record), 100_000)
        self.assertGreater(len(record.headers), 9_000)
