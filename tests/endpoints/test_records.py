"""One record of a batch."""

import base64
import json
from typing import Any

import msgspec
from hypothesis import given
from hypothesis import strategies as st
from twisted.trial.unittest import SynchronousTestCase

from psubd.endpoints import records
from psubd.endpoints.formats import as_read
from psubd.errors import BadHeader, BadRecord, ReservedHeader, StorageUnavailable, TooLarge
from psubd.model import Delivered, Message, Record

LIMIT = 1000


def read(raw: bytes | str | dict[str, Any]) -> Record:
    text = json.dumps(raw) if isinstance(raw, dict) else raw
    return records.read("t", text.encode() if isinstance(text, str) else text, LIMIT)


class ValueTests(SynchronousTestCase):
    def value(self, raw: bytes | str) -> bytes | None:
        return read((raw.encode() if isinstance(raw, str) else raw).join((b'{"value": ', b"}"))).value

    def test_text(self) -> None:
        """A string is text, its escapes undone; an empty one is an empty message."""
        self.assertEqual(self.value('"a\\u00e9\\n\\u0000"'), "a\u00e9\n\0".encode())
        self.assertEqual(self.value('""'), b"")

    def test_bytes(self) -> None:
        """An object whose only member is ``base64`` is bytes, strictly; escapes in its name do not matter."""
        self.assertEqual(self.value('{"base64": "/wA="}'), b"\xff\0")
        self.assertEqual(self.value('{"\\u0062ase64": ""}'), b"")
        for wrong in ('{"base64": "/wA"}', '{"base64": 5}', '{"base64": null}', '{"base64": ["/wA="]}'):
            self.assertRaises(BadRecord, self.value, wrong)

    def test_inner_json(self) -> None:
        """An object whose only member is ``json`` is that member's JSON, as it stood: so a string, null or ``{"base64"}`` can be JSON too."""
        for inner in ('"a"', "null", '{"base64":  "x"}', "[1 , 2]"):
            self.assertEqual(self.value(f'{{"json": {inner} }}'), inner.encode())

    def test_other_json(self) -> None:
        """Other JSON is kept as its bytes stood, blanks, order, repeats, long numbers and escapes included."""
        for kept in (
            '{"b" : 1,"a":[ ]}',
            "[]",
            "1.50",
            "1e400",
            "123456789012345678901234567890",
            "true",
            '{"base64":"x","b":1}',
            '{"a":"\\u00e9\u00e9"}',
            "{}",
        ):
            self.assertEqual(self.value(kept), kept.encode())

    def test_tombstone(self) -> None:
        """null is a tombstone."""
        self.assertIsNone(self.value("null"))

    def test_content_type(self) -> None:
        """Kept JSON gets ``content-type: application/json`` unless the record names one, in any case of letters; text, bytes and null get none."""
        self.assertEqual(read('{"value": {"a": 1}}').headers, (("content-type", b"application/json"),))
        self.assertEqual(read('{"value": {"json": 1}, "headers": {"x": "1"}}').headers, (("x", b"1"), ("content-type", b"application/json")))
        self.assertEqual(read('{"value": [], "headers": {"Content-Type": "a"}}').headers, (("Content-Type", b"a"),))
        for value in ('"a"', '{"base64": ""}', "null"):
            self.assertEqual(read(f'{{"value": {value}}}').headers, ())

    def test_encoding(self) -> None:
        """``encoding: base64``, as sub gives it, makes a string bytes; null stays a tombstone; other values do not go with it."""
        self.assertEqual(read({"value": "/wA=", "encoding": "base64"}).value, b"\xff\0")
        self.assertEqual(read({"value": "/wA=", "encoding": "utf-8"}).value, b"/wA=")
        self.assertIsNone(read({"value": None, "encoding": "base64"}).value)
        for value in ("/wA", 5, {"base64": "/wA="}, {"a": 1}):
            self.assertRaises(BadRecord, read, {"value": value, "encoding": "base64"})
        for encoding in ("hex", None, 5):
            self.assertRaises(BadRecord, read, {"value": "", "encoding": encoding})

    def test_not_json(self) -> None:
        """What is not JSON in UTF-8 is refused, inside kept values too."""
        for wrong in (b"[1,]", b"nan", b"[1, -]", b"01", b'"\xff"', b'["\xff"]', b'{"a":"\xed\xa0\x80"}', b'"\\ud800"', b'"a', b"", b"'a'", b"1 2"):
            self.assertRaises(BadRecord, self.value, wrong)

    def test_lone_surrogates(self) -> None:
        """Half of a surrogate pair is no text: refused, and the refusal says so, whatever the parser made of it."""
        for wrong in ('"\\ud800"', '"a\\uDFFFb"', '["\\ud800"]', '{"\\udc00\\ud800":1}'):
            error = self.assertRaises(BadRecord, self.value, wrong)
            self.assertIn("surrogate", error.detail)
        self.assertEqual(self.value('"\\ud83d\\ude00"'), "\U0001f600".encode())
        self.assertNotIn("surrogate", self.assertRaises(BadRecord, self.value, '"\\ud83d\\ude00').detail)

    def test_depth(self) -> None:
        """64 levels are kept, 65 are refused; so are a hundred thousand."""
        self.assertEqual(self.value("[" * 64 + "]" * 64), b"[" * 64 + b"]" * 64)
        for levels in (65, 499):
            self.assertRaises(BadRecord, self.value, "[" * levels + "]" * levels)
        deep = '{"value": ' + "[" * 100_000 + "]" * 100_000 + "}"
        self.assertRaises(BadRecord, records.read, "t", deep.encode(), 1_000_000)

    def test_over_the_limit(self) -> None:
        """Kept JSON of exactly the limit is taken, one byte more is 413."""
        exact = "[" + " " * (LIMIT - 2) + "]"
        self.assertEqual(self.value(exact), exact.encode())
        self.assertRaises(TooLarge, self.value, exact[:-1] + " ]")


class MemberTests(SynchronousTestCase):
    def test_all(self) -> None:
        """Every member is taken."""
        found = read({"value": "v", "key": "k", "partition": 2, "timestamp": 5, "headers": {"a": "1", "b": {"base64": "/w=="}, "c": None}})
        self.assertEqual(found, Record("t", b"v", b"k", (("a", b"1"), ("b", b"\xff"), ("c", None)), 2, 5))

    def test_absent_and_null(self) -> None:
        """Members that are absent or null say nothing; an empty key is a key."""
        nothing = Record("t", b"v")
        self.assertEqual(read({"value": "v"}), nothing)
        self.assertEqual(read({"value": "v", "key": None, "partition": None, "timestamp": None, "headers": None}), nothing)
        self.assertEqual(read({"value": "v", "key": ""}).key, b"")

    def test_repeated_header(self) -> None:
        """A list repeats the name, in order; an empty list gives none."""
        found = read({"value": "", "headers": {"a": ["1", None, {"base64": "/w=="}], "b": [], "": "x"}})
        self.assertEqual(found.headers, (("a", b"1"), ("a", None), ("a", b"\xff"), ("", b"x")))

    def test_ignored(self) -> None:
        """What sub says beside a record is ignored, whatever it says."""
        said = {"topic": "other", "offset": 7, "attempt": 3, "ack": "token", "epoch": 2}
        self.assertEqual(read({"value": "v", **said}), Record("t", b"v"))
        self.assertEqual(read({"value": "v", **dict.fromkeys(said)}), Record("t", b"v"))

    def test_unknown(self) -> None:
        """Another member is refused by its name."""
        refused = self.assertRaises(BadRecord, read, {"value": "v", "colour": 1})
        self.assertIn("colour", refused.detail)

    def test_refused(self) -> None:
        """No value, wrong types, numbers that are none or too large."""
        wrong: list[Any] = [
            {},
            {"key": "k"},
            {"value": "", "key": 5},
            {"value": "", "key": {"base64": "x"}},
            {"value": "", "key": {"base64": "", "more": 1}},
            {"value": "", "key": {}},
            {"value": "", "partition": -1},
            {"value": "", "partition": 2**31},
            {"value": "", "partition": "0"},
            {"value": "", "partition": True},
            {"value": "", "partition": 1.0},
            {"value": "", "timestamp": -1},
            {"value": "", "timestamp": 2**63},
            {"value": "", "timestamp": 10**30},
            {"value": "", "headers": []},
            {"value": "", "headers": {"a": 1}},
            {"value": "", "headers": {"a": [["x"]]}},
            {"value": "", "headers": {"a": {"base64": "x"}}},
            {"value": "", "topic": {}},
        ]
        for record in wrong:
            self.assertRaises(BadRecord, read, record)
        for text in ("[]", "null", "5", '"x"', ""):
            self.assertRaises(BadRecord, read, text)

    def test_reserved(self) -> None:
        """psubd's own header names are refused in any case of letters, since a reader over HTTP could not tell them apart."""
        for name in ("psubd.group", "psubd", "PSUBD.Seal"):
            self.assertRaises(ReservedHeader, read, {"value": "", "headers": {name: "x"}})


class InRecordTests(SynchronousTestCase):
    def test_numbered(self) -> None:
        """A refusal names the record; what is a header of a single publish is a member of a record here; the storage's own are no record's."""
        told = records.in_record(BadHeader("timestamp: no"), 3)
        self.assertIsInstance(told, BadRecord)
        self.assertEqual((told.detail, told.members), ("timestamp: no", {"record": 3}))
        self.assertEqual(records.in_record(TooLarge("big"), 0).members, {"record": 0})
        self.assertEqual(records.in_record(ReservedHeader("no"), 1).members, {"record": 1})
        self.assertEqual(records.in_record(StorageUnavailable("away"), 1).members, {})


data = st.one_of(st.none(), st.binary(max_size=20), st.text(alphabet=st.characters(exclude_categories=("Cs",)), max_size=20).map(str.encode))
names = st.text(alphabet=st.characters(exclude_categories=("Cs",)), max_size=8).filter(lambda name: name[:5].lower() != "psubd")
messages = st.builds(
    Message,
    offset=st.integers(0, 2**63 - 1),
    timestamp=st.integers(0, 2**63 - 1),
    key=data,
    value=data,
    headers=st.lists(st.tuples(names, data), max_size=5).map(tuple),
)


class RoundTripTests(SynchronousTestCase):
    @given(messages, st.integers(0, 2**31 - 1), st.none() | st.integers(1, 100))
    def test_what_was_read_can_be_posted_back(self, message: Message, partition: int, attempt: int | None) -> None:
        """A message as sub gives it in JSON, posted back as a batch's record, is the same record: value, key, partition, timestamp, headers with
        their values in order by name."""
        shown = msgspec.json.encode(as_read(Delivered("t", partition, message, attempt, None if attempt is None else "token", None)))
        record = records.read("t", shown, LIMIT)
        again = Message(message.offset, record.timestamp or 0, record.key, record.value, record.headers)
        self.assertEqual(
            msgspec.json.encode(as_read(Delivered("t", record.partition or 0, again, attempt, None if attempt is None else "token", None))), shown
        )
        self.assertEqual((record.value, record.key, record.partition, record.timestamp), (message.value, message.key, partition, message.timestamp))
        self.assertEqual(sorted(record.headers, key=lambda header: header[0]), sorted(message.headers, key=lambda header: header[0]))

    @given(
        st.recursive(
            st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False, allow_infinity=False) | st.text(max_size=5),
            lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=5), inner, max_size=3),
            max_leaves=8,
        )
    )
    def test_json_is_kept(self, value: Any) -> None:
        """Whatever JSON is published under ``json`` is stored byte for byte."""
        raw = json.dumps(value).encode()
        self.assertEqual(records.read("t", b'{"value":{"json":' + raw + b"}}", 10_000).value, raw)

    @given(st.binary(max_size=60))
    def test_never_crashes(self, raw: bytes) -> None:
        """Any bytes are a record or a refusal."""
        for text in (raw, b'{"value":' + raw + b"}", b'{"value":"","headers":' + raw + b"}", base64.b64encode(raw)):
            try:
                records.read("t", text, LIMIT)
            except (BadRecord, ReservedHeader, TooLarge):
                continue
