"""The forms of an answer: octets, lines, JSON (contract, section 3)."""

import base64
import json
import struct
from collections.abc import Iterator

from psubd.testing.http_contract.steps import MEBIBYTE, Steps

OCTETS = {"accept": "application/octet-stream"}
LINES = {"accept": "application/x-ndjson"}
FRAMES = {"accept": "application/vnd.psubd.frames"}
FRAME = struct.Struct(">IBiqqqIHHiiI")
"""docs/http.md, "Binary frames"."""


def frame_tokens(body: bytes) -> Iterator[bytes]:
    """The ack token of each frame."""
    at = 0
    while at < len(body):
        size, *_, topic, token, _, _, _ = FRAME.unpack_from(body, at)
        begin = at + FRAME.size + topic
        yield body[begin : begin + token]
        at += 4 + size


class AnswersContract(Steps):
    """What a client may accept."""

    def test_octet_stream(self) -> None:
        """The payload itself, always as application/octet-stream, the rest in headers; nothing of it is written as the publisher chose
        unless it is printable ASCII; nulls are counted as left out, a tombstone is marked."""
        stand = self.stand()
        binary = bytes(range(256))
        self.put(stand, binary, **{"key": "k 1", "content-type": "text/html", "header.a": "1, 2"})
        self.put_batch(stand, [{"key": "a\r\nx: y", "value": "t", "headers": {"b": "\r\n\r\n<html>", "null": None, "c": ["1", "2"]}}])
        self.put(stand, b"", tombstone="true")
        got = [stand.sub.request("GET", "/v1/sub?timeout=5000", None, OCTETS) for _ in range(3)]
        self.assertEqual([reply.body for reply in got], [binary, b"t", b""])
        for reply in got:
            told = (reply.status, reply.headers["content-type"], reply.headers["topic.id"], reply.headers["partition"], reply.headers["attempt"])
            self.assertEqual(told, (200, "application/octet-stream", stand.topic, "0", "1"))
            self.assertTrue(reply.headers["offset"].isdecimal() and reply.headers["timestamp"].isdecimal())
        plain, coded, tombstone = (reply.headers for reply in got)
        self.assertEqual((plain["key"], plain["header.content-type"], plain["header.a"]), ("k 1", "text/html", "1, 2"))
        self.assertFalse({"key.encoding", "headers.encoding", "headers.omitted", "tombstone"} & plain.keys())
        self.assertEqual((coded["key.encoding"], coded["headers.encoding"], coded["headers.omitted"]), ("base64", "base64", "2"))
        names = tuple(base64.b64decode(coded[name]) for name in ("key", "header.b", "header.c"))
        self.assertEqual((names, "x" in coded), ((b"a\r\nx: y", b"\r\n\r\n<html>", b"1"), False))
        self.assertEqual((tombstone["tombstone"], "key" in tombstone), ("true", False))

    def test_octet_stream_has_one_message(self) -> None:
        """With octet-stream and another batchSize than 1: 400, and no cursor moves; a large payload comes whole."""
        stand = self.stand()
        with self.unchanged(stand):
            self.assert_refused(stand.sub.request("GET", "/v1/sub?batchSize=2", None, OCTETS), 400, "bad_parameter")
        self.put(stand, b"x" * MEBIBYTE)
        self.assertEqual(len(stand.sub.request("GET", "/v1/sub?timeout=5000", None, OCTETS).body), MEBIBYTE)
        reply = stand.sub.request("GET", "/v1/sub?timeout=0", None, OCTETS)
        self.assertEqual((reply.status, reply.body), (204, b""))

    def test_octet_stream_leaves_out_what_is_too_much(self) -> None:
        """Of record headers at most 60 lines and 8 KiB are given, the others are counted."""
        stand = self.stand()
        many, long = {f"h{number:03}": "v" for number in range(70)}, {"a": "x" * 9000, "b": "y"}
        self.put_batch(stand, [{"value": "1", "headers": many}, {"value": "2", "headers": long}])
        first, second = (stand.sub.request("GET", "/v1/sub?timeout=5000", None, OCTETS).headers for _ in range(2))
        self.assertEqual((len([name for name in first if name.startswith("header.")]), first["headers.omitted"]), (60, "10"))
        self.assertEqual((second.get("header.a"), second["header.b"], second["headers.omitted"]), (None, "y", "1"))

    def test_lines(self) -> None:
        """application/x-ndjson gives the messages that JSON gives, one a line."""
        stand = self.stand()
        self.put_batch(stand, [{"key": "k", "value": "a"}, {"value": {"base64": "/w=="}, "headers": {"a": ["1", None]}}, {"key": "k", "value": None}])
        reply = stand.sub.request("GET", "/v1/sub?batchSize=10&timeout=5000&group=lines", None, LINES)
        self.assertEqual((reply.status, reply.headers["content-type"], reply.body[-1:]), (200, "application/x-ndjson", b"\n"))
        lines = [json.loads(line) for line in reply.body.splitlines()]
        self.assertEqual(lines, self.drain(stand, 3)[: len(lines)])

    def test_frames(self) -> None:
        """application/vnd.psubd.frames gives the messages that JSON gives, and what was read can be posted back as it is."""
        stand, other = self.stand(), self.stand()
        self.put_batch(stand, [{"key": "k", "value": "a"}, {"value": {"base64": "/w=="}, "headers": {"a": ["1", None]}}, {"key": "k", "value": None}])
        reply = stand.sub.request("GET", "/v1/sub?batchSize=10&timeout=5000&group=frames&ack=explicit", None, FRAMES)
        self.assertEqual((reply.status, reply.headers["content-type"]), (200, FRAMES["accept"]))
        posted = other.pub.request("POST", f"/v1/pub/{other.topic}/batch", reply.body, {"content-type": FRAMES["accept"]})
        count = len(posted.json["results"])
        self.assertEqual((posted.status, posted.json["failed"]), (200, 0), posted)
        read, again = (
            [{name: message[name] for name in ("timestamp", "key", "value", "encoding", "headers")} for message in self.drain(one, most)]
            for one, most in ((stand, 3), (other, count))
        )
        self.assertEqual(again, read[:count])
        tokens = [token.decode() for token in frame_tokens(reply.body)]
        self.assertEqual(stand.sub.send("POST", "/v1/ack", {"tokens": tokens}).json, {"acked": count})

    def test_what_a_client_accepts(self) -> None:
        """JSON where all is liked alike; what is not built yet, or is nothing of it, is 406 and moves no cursor."""
        stand = self.stand()
        self.put(stand, b"a")
        with self.unchanged(stand):
            for accept in ("text/event-stream", "text/html", "application/json;q=0"):
                self.assert_refused(stand.sub.request("GET", "/v1/sub?timeout=0", None, {"accept": accept}), 406, "not_acceptable", accept)
        for accept in ("*/*", "application/*", "text/html, application/json;q=0.1", "application/json"):
            self.put(stand, b"a")
            reply = stand.sub.request("GET", "/v1/sub?timeout=5000", None, {"accept": accept})
            self.assertEqual((reply.status, reply.headers["content-type"]), (200, "application/json"), accept)
