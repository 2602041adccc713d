"""Keys and values inside JSON, both ways."""

import json
from typing import Any

from twisted.trial.unittest import SynchronousTestCase

from psubd.endpoints.confluent.embedded import Format, Header, bytes_of, headers_of, records
from psubd.endpoints.confluent.media import Dialect
from psubd.errors import BadRecord, ReservedHeader
from psubd.model import Delivered, Headers, Message


def shown(value: bytes | None, format: Format, dialect: Dialect = 2, key: bytes | None = None, headers: Headers = ()) -> Any:
    """The record as a client reads it."""
    body = records([Delivered("t", 1, Message(2, 3, key, value, headers))], format, dialect)
    (record,) = json.loads(body)
    return record


class WritingTests(SynchronousTestCase):
    def test_binary(self) -> None:
        self.assertEqual(shown(b"\xff\x00", "binary")["value"], "/wA=")
        self.assertEqual((shown(b"", "binary")["value"], shown(None, "binary")["value"]), ("", None))

    def test_json_is_kept_as_it_stands(self) -> None:
        """Its digits, its order, its blanks."""
        body = records([Delivered("t", 1, Message(2, 3, b"1.0", b' {"b": 1.10, "a":\t[]} ', ()))], "json", 1)
        self.assertEqual(body, b'[{"key":1.0,"value": {"b": 1.10, "a":\t[]} ,"partition":1,"offset":2}]')

    def test_what_is_no_json(self) -> None:
        """Text is a string, other bytes are base64 in an object; the answer is JSON all the same, whatever they are."""
        for value, expected in (
            (b"plain", "plain"),
            (b"", ""),
            (b'"open', '"open'),
            (b"1 2", "1 2"),
            (b"NaN", "NaN"),
            (b'{"a":1}}', '{"a":1}}'),
            (b"\xff", {"base64": "/w=="}),
            (b'"\xff"', {"base64": "Iv8i"}),
            (b"[" * 100_000, "[" * 100_000),
            ("\ufeff1".encode(), "\ufeff1"),
            (b'\x00\x1f"\\', '\x00\x1f"\\'),
            (b"null", None),
        ):
            self.assertEqual(shown(value, "json", key=value)["value"], expected)
            self.assertEqual(shown(value, "json", key=value)["key"], expected)

    def test_text(self) -> None:
        for value, expected in (("é\n".encode(), "é\n"), (b"1", "1"), (b"\xff", {"base64": "/w=="}), (None, None)):
            self.assertEqual(shown(value, "text")["value"], expected)

    def test_members(self) -> None:
        """Four in the first version, Confluent's five and the timestamp in the second, headers where there are any."""
        self.assertEqual(list(shown(b"", "text", 1, headers=(("h", b""),))), ["key", "value", "partition", "offset"])
        self.assertEqual(list(shown(b"", "text")), ["topic", "key", "value", "partition", "offset", "timestamp"])
        headers = [{"key": "h", "value": "/w=="}, {"key": "h", "value": None}]
        self.assertEqual(shown(b"", "text", headers=(("h", b"\xff"), ("h", None)))["headers"], headers)

    def test_many(self) -> None:
        messages = [Delivered("t", 0, Message(offset, 0, None, b"1", ())) for offset in range(3)]
        self.assertEqual([record["offset"] for record in json.loads(records(messages, "json", 1))], [0, 1, 2])
        self.assertEqual(records([], "json", 2), b"[]")


class TakingTests(SynchronousTestCase):
    def test_bytes(self) -> None:
        for raw, format, expected in (
            (b'"/wA="', "binary", b"\xff\x00"),
            (b" null ", "binary", None),
            (b"null", "json", None),
            (b"null", "text", None),
            (b'"\\u00e9"', "text", "é".encode()),
            (b' {"b": 1.10} ', "json", b'{"b": 1.10}'),
            (b'""', "json", b'""'),
            (b"0", "json", b"0"),
            (b'""', "binary", b""),
        ):
            self.assertEqual(bytes_of(raw, format, "value"), expected)  # type: ignore[arg-type]

    def test_what_is_none(self) -> None:
        """The refusal names the member."""
        for raw, format in ((b"1", "binary"), (b'"a"', "binary"), (b'"_w=="', "binary"), (b"{}", "text"), (b'"\xff"', "json"), (b'"\xff"', "text")):
            refused = self.assertRaises(BadRecord, bytes_of, raw, format, "value")
            self.assertIn("value", refused.detail)
        self.assertRaises(BadRecord, bytes_of, b"[" * 65 + b"]" * 65, "json", "value")

    def test_headers(self) -> None:
        self.assertEqual(headers_of([Header("a", "/w=="), Header("a")]), (("a", b"\xff"), ("a", None)))
        self.assertRaises(BadRecord, headers_of, [Header("a", "x")])
        self.assertRaises(ReservedHeader, headers_of, [Header("psubd.x", "")])
