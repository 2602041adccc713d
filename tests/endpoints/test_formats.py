"""Messages as JSON and NDJSON."""

import json
from typing import Any

import msgspec
from twisted.trial.unittest import SynchronousTestCase

from psubd.endpoints.formats import as_read, json_lines
from psubd.model import Delivered, Headers, Message


def shown(key: bytes | None = None, value: bytes | None = b"v", headers: Headers = (), **more: Any) -> dict[str, Any]:
    found: dict[str, Any] = json.loads(msgspec.json.encode(as_read(Delivered("t", 2, Message(41, 1700, key, value, headers), **more))))
    return found


class MemberTests(SynchronousTestCase):
    def test_every_member(self) -> None:
        """Every member but ack and epoch is there, also where there is nothing to say."""
        expected = {
            "topic": "t",
            "partition": 2,
            "offset": 41,
            "timestamp": 1700,
            "key": None,
            "value": None,
            "encoding": "utf-8",
            "headers": {},
            "attempt": 1,
        }
        self.assertEqual(shown(value=None, attempt=1), expected)

    def test_replay_has_no_attempt(self) -> None:
        """A replay's message says nothing of attempts."""
        self.assertNotIn("attempt", shown())

    def test_explicit(self) -> None:
        """A leased message has its token and the epoch."""
        self.assertEqual({name: shown(attempt=1, token="tk", epoch=7)[name] for name in ("ack", "epoch")}, {"ack": "tk", "epoch": 7})

    def test_value(self) -> None:
        """Text as text, other bytes as base64; ``encoding`` tells which."""
        for value, told, encoding in (
            (b"", "", "utf-8"),
            ("\u00e9\0\n".encode(), "\u00e9\0\n", "utf-8"),
            (b"\xff", "/w==", "base64"),
            (b"\xed\xa0\x80", "7aCA", "base64"),
        ):
            found = shown(value=value)
            self.assertEqual((found["value"], found["encoding"]), (told, encoding))

    def test_key(self) -> None:
        """A key that is not UTF-8 is an object; an empty one is text."""
        self.assertEqual([shown(key=key)["key"] for key in (b"k", b"", b"\xff")], ["k", "", {"base64": "/w=="}])

    def test_headers(self) -> None:
        """By name; a repeated name has a list in order; null and bytes where they are that."""
        headers = (("a", b"1"), ("b", b"\xff"), ("a", None), ("c", None), ("a", b"\xff"), ("A", b"x"))
        expected = {"a": ["1", None, {"base64": "/w=="}], "b": {"base64": "/w=="}, "c": None, "A": "x"}
        self.assertEqual(shown(headers=headers)["headers"], expected)


class LineTests(SynchronousTestCase):
    def test_lines(self) -> None:
        """One message a line, each ended; a line feed in a payload does not make a line."""
        messages = [Delivered("t", 0, Message(offset, 1, None, b"a\nb", ()), 1) for offset in range(3)]
        body, ends = json_lines(messages)
        self.assertEqual([body[end - 1 : end] for end in ends], [b"\n"] * 3)
        self.assertEqual(ends[-1], len(body))
        self.assertEqual(body.count(b"\n"), 3)
        self.assertTrue(body.endswith(b"\n"))
        self.assertEqual([json.loads(line)["offset"] for line in body.splitlines()], [0, 1, 2])
        self.assertEqual([json.loads(line)["value"] for line in body.splitlines()], ["a\nb"] * 3)
