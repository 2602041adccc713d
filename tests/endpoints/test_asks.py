"""What a client asks of sub: the query, the JSON object, the combinations, ``next``."""

import base64
import json
from typing import Any

import msgspec
from hypothesis import given
from hypothesis import strategies as st
from twisted.trial.unittest import SynchronousTestCase

from psubd.endpoints import asks, places
from psubd.endpoints.places import Place
from psubd.errors import BadBody, BadParameter
from psubd.model import Poll, Replay


def asked(query: str) -> Poll | Replay:
    return asks.ask(asks.from_query(query.encode()), "shop")


def posted(**form: Any) -> Poll | Replay:
    return asks.ask(asks.from_json(json.dumps(form).encode()), "shop")


class PollTests(SynchronousTestCase):
    def test_defaults(self) -> None:
        """The contract's defaults, from a query and from an object."""
        expected = Poll("shop", None, 1, 8_388_608, 30_000, None, None)
        self.assertEqual(asked(""), expected)
        self.assertEqual(posted(), expected)

    def test_all(self) -> None:
        """Every parameter; a topic may be repeated and counts once; the object says the same. ``ackTimeout`` goes with either mode."""
        expected = Poll("shop.g.1", ("a", "b"), 10, 4096, 0, "auto", 1000)
        self.assertEqual(asked("batchSize=10&maxBytes=4096&topic=a&topic=b&topic=a&timeout=0&group=g.1&ack=auto&ackTimeout=1000"), expected)
        form = {"batchSize": 10, "maxBytes": 4096, "topic": ["a", "b", "a"], "timeout": 0, "group": "g.1", "ack": "auto", "ackTimeout": 1000}
        self.assertEqual(posted(**form), expected)
        self.assertEqual(posted(topic="a", tokens=[]), Poll("shop", ("a",)))

    def test_ranges(self) -> None:
        """Both ends of each range are taken, what is beyond is not."""
        ranges = {"batchSize": (1, 10_000), "maxBytes": (1024, 67_108_864), "timeout": (0, 60_000), "ackTimeout": (1000, 43_200_000)}
        for name, (low, high) in ranges.items():
            for number in (low, high):
                self.assertEqual(asked(f"{name}={number}"), posted(**{name: number}))
            for number in (low - 1, high + 1):
                self.assertRaises(BadParameter, asked, f"{name}={number}")
                self.assertRaises(BadBody, posted, **{name: number})

    def test_numbers(self) -> None:
        """Numbers are ASCII digits and nothing else."""
        for text in ("", "+1", "1.0", "1e1", "0x1", "%201", "1%0a", "%D9%A1", "1_0", "9" * 20):
            self.assertRaises(BadParameter, asked, f"batchSize={text}")
        for value in ("1", 1.0, True, [1]):
            self.assertRaises(BadBody, posted, batchSize=value)

    def test_member_twice(self) -> None:
        """A parameter that stands twice in the object is refused as in a query, however it is spelled and though both say the same."""
        for body in ('{"timeout":5,"timeout":0}', '{"timeout":0,"timeout":0}', '{"topic":"a","\\u0074opic":"b"}', '{"tokens":[],"tokens":[]}'):
            error = self.assertRaises(BadBody, asks.from_json, body.encode())
            self.assertIn("twice", error.detail)
        self.assertEqual(asks.from_json(b'{"topic":["a","a"],"offset":1}').topic, ["a", "a"])

    def test_unknown_and_twice(self) -> None:
        """Unknown parameters and repeated single ones are refused; names are case-sensitive."""
        for query in ("batchsize=1", "x=1", "batchSize=1&batchSize=1", "group=a&group=a", "tokens=a", "batch_size=1"):
            self.assertRaises(BadParameter, asked, query)
        self.assertRaises(BadBody, posted, batch_size=1)

    def test_group(self) -> None:
        """A group's name is never empty and keeps to the grammar."""
        for name in ("", ".", "..", "__x", "a%2Fb", "a%00", "%C3%A9", "a" * 201, "a+b"):
            self.assertRaises(BadParameter, asked, f"group={name}")
        for name in ("", "..", "a/b", "a\n"):
            self.assertRaises(BadParameter, posted, group=name)
        self.assertEqual(asked("group=" + "a" * 200), Poll("shop." + "a" * 200))

    def test_group_is_always_below(self) -> None:
        """Whatever it says, a group is one of the application's: its own id, another's id, another's full name."""
        for name in ("shop", "other", "other.g", "shop.g"):
            self.assertEqual(asked(f"group={name}"), Poll(f"shop.{name}"))

    def test_topic(self) -> None:
        """A topic that no topic can be named is malformed."""
        for name in ("", "..", "__consumer_offsets", "a%20b"):
            self.assertRaises(BadParameter, asked, f"topic={name}")
        self.assertRaises(BadParameter, posted, topic=["a", ""])

    def test_ack(self) -> None:
        """``auto``, ``explicit``, or each binding's own; with ``ackTimeout`` or without. Another word is malformed."""
        self.assertEqual(asked("ack=explicit"), Poll("shop", ack="explicit"))
        self.assertEqual(posted(ack="explicit", ackTimeout=1000), Poll("shop", ack="explicit", ack_timeout_ms=1000))
        self.assertEqual(asked("ackTimeout=43200000"), Poll("shop", ack_timeout_ms=43_200_000))
        for word in ("", "AUTO", "none"):
            self.assertRaises(BadParameter, asked, f"ack={word}")

    def test_tokens(self) -> None:
        """Up to 10,000 tokens, each a text; not in a query."""
        self.assertEqual(asks.from_json(b'{"tokens":["a",""]}').tokens, ["a", ""])
        self.assertEqual(len(asks.from_json(json.dumps({"tokens": ["a"] * 10_000}).encode()).tokens or ()), 10_000)
        for tokens in (["a"] * 10_001, [1], [None], "a", {"a": 1}):
            self.assertRaises(BadBody, posted, tokens=tokens)

    def test_partition_alone(self) -> None:
        """``partition`` goes with ``offset`` only."""
        self.assertRaises(BadParameter, asked, "partition=0")

    def test_not_an_object(self) -> None:
        """The body is a JSON object."""
        for body in (b"", b"[]", b"null", b"{", b'{"group": null, "batchSize": null}', b"\xff", b'{"a"' + b"[" * 70):
            self.assertRaises(BadBody, asks.from_json, body)


class ReplayTests(SynchronousTestCase):
    def test_starts(self) -> None:
        """Every place to begin at."""
        self.assertEqual(asked("topic=t&offset=earliest"), Replay("t", "earliest"))
        self.assertEqual(asked("topic=t&offset=latest&partition=3"), Replay("t", "latest", 3))
        self.assertEqual(asked("topic=t&offset=time:1700"), Replay("t", ("time", 1700)))
        self.assertEqual(asked("topic=t&offset=time%3A0&partition=1"), Replay("t", ("time", 0), 1))
        self.assertEqual(asked("topic=t&offset=41&partition=2"), Replay("t", {2: 41}, 2))
        self.assertEqual(posted(topic="t", offset=41, partition=2), Replay("t", {2: 41}, 2))
        self.assertEqual(posted(topic=["t"], offset="41", partition=2, batchSize=5, maxBytes=1024, timeout=0), Replay("t", {2: 41}, 2, 5, 1024, 0))

    def test_needs_one_topic(self) -> None:
        """None or two topics are refused."""
        for query in ("offset=earliest", "offset=earliest&topic=a&topic=b"):
            self.assertRaises(BadParameter, asked, query)

    def test_not_with_a_group(self) -> None:
        """``group``, ``ack``, ``ackTimeout`` and tokens have nothing to do with a replay, whatever they say."""
        for more in ("group=g", "ack=auto", "ack=explicit", "ackTimeout=1000"):
            self.assertRaises(BadParameter, asked, f"topic=t&offset=earliest&{more}")
        self.assertRaises(BadParameter, posted, topic="t", offset="earliest", tokens=[])

    def test_number_needs_partition(self) -> None:
        """A number alone does not say where."""
        self.assertRaises(BadParameter, asked, "topic=t&offset=41")

    def test_malformed(self) -> None:
        """Words, numbers and times that are none; a partition that is none."""
        for offset in ("", "first", "-1", "1.5", "time:", "time:x", "time:-1", "EARLIEST", "9" * 20, "n1.", "n1.!!", "n2.AAAA", "n1.AAAA"):
            self.assertRaises(BadParameter, asked, f"topic=t&partition=0&offset={offset}")
        for partition in ("-1", "x", "2147483648", ""):
            self.assertRaises(BadParameter, asked, f"topic=t&offset=earliest&partition={partition}")


class NextTests(SynchronousTestCase):
    def test_goes_on(self) -> None:
        """``next`` says where each partition goes on, with or without the same ``partition`` beside it."""
        everything = places.write(Place("t", None, {0: 5, 1: 7}))
        self.assertEqual(asked(f"topic=t&offset={everything}"), Replay("t", {0: 5, 1: 7}))
        self.assertEqual(asked(f"topic=t&offset={everything}&partition=1"), Replay("t", {1: 7}, 1))
        one = places.write(Place("t", 1, {1: 7}))
        for query in (f"topic=t&offset={one}", f"topic=t&offset={one}&partition=1"):
            self.assertEqual(asked(query), Replay("t", {1: 7}, 1))

    def test_of_another(self) -> None:
        """A ``next`` of another topic or of other partitions is refused."""
        place = places.write(Place("t", 1, {1: 7}))
        for query in (f"topic=u&offset={place}", f"topic=t&offset={place}&partition=0"):
            self.assertRaises(BadParameter, asked, query)
        self.assertRaises(BadParameter, asked, f"topic=t&partition=9&offset={places.write(Place('t', None, {0: 1}))}")

    def test_forged(self) -> None:
        """One that psubd would not write is refused: negative offsets, other shapes, trailing bytes, standard base64 or padding."""
        for value in (
            ["t", None, {0: -1}],
            ["t", -1, {0: 1}],
            ["t", None, {-1: 1}],
            ["..", None, {0: 1}],
            ["t", None],
            ["t", None, {0: 1}, 5],
            5,
            {"a": 1},
            ["t", "0", {}],
        ):
            text = "n1." + base64.urlsafe_b64encode(msgspec.msgpack.encode(value)).decode().rstrip("=")
            self.assertRaises(BadParameter, places.read, text)
        good = places.write(Place("t", None, {0: 1}))
        for text in (good + "A" * 4, good + "=", good[:-2], good.swapcase()):
            self.assertRaises(BadParameter, places.read, text)

    @given(st.integers(0, 2**31 - 1) | st.none(), st.dictionaries(st.integers(0, 2**31 - 1), st.integers(0, 2**63 - 1), max_size=5))
    def test_round_trip(self, partition: int | None, offsets: dict[int, int]) -> None:
        """What is written is read, and stands in a query and in a header as it is."""
        place = Place("a.topic-1", partition, offsets)
        text = places.write(place)
        self.assertRegex(text, r"\A[A-Za-z0-9._-]+\Z")
        self.assertEqual(places.read(text), place)

    @given(st.text(max_size=40))
    def test_never_crashes(self, text: str) -> None:
        """Any text is a place or a refusal."""
        try:
            places.read("n1." + text)
        except BadParameter:
            return
