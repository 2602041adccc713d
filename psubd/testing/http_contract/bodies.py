"""Bodies: how large, how coded, how long (contract, sections 2 and 6)."""

import base64
import gzip
import json
import os

from psubd.testing.http_contract.steps import MEBIBYTE, Steps, written

BESIDE = 65_536
"""Bytes of key and headers that a message may have (contract, section 2)."""


class BodiesContract(Steps):
    """Sizes and codings of what is published."""

    def test_exactly_a_mebibyte(self) -> None:
        """Exactly 1 MiB of value with a key and record headers is 200 and comes back; one byte more is 413, and nothing is stored."""
        stand, value = self.stand(), os.urandom(MEBIBYTE)
        headers = {"key": "k" * 1000, **{f"header.h{number}": "v" * 700 for number in range(40)}}
        self.put(stand, value, **headers)
        with self.unchanged(stand):
            for body in (value + b"x", value * 2):
                self.assert_refused(self.send(stand, body, headers), 413, "too_large")
        [message] = self.read(stand)
        self.assertTrue(base64.b64decode(message["value"]) == value)
        self.assertEqual(len(message["headers"]), 40)

    def test_key_and_headers_together(self) -> None:
        """64 KiB of key and headers beside 1 MiB of value are taken, one byte more is 413 with the record's number."""
        stand, value = self.stand(), "v" * MEBIBYTE
        headers = {f"name-{number:03}": "x" * 1016 for number in range(62)}
        key = "k" * (BESIDE - 62 * 1024)
        self.put_batch(stand, [{"key": key, "value": value, "headers": headers}])
        with self.unchanged(stand):
            refused = self.batch(stand, [{"value": "small"}, {"key": f"{key}k", "value": value, "headers": headers}])
            self.assert_refused(refused, 413, "too_large")
            self.assertEqual(refused.json["record"], 1)
            refused = self.batch(stand, [{"value": value}, {"value": "small"}, {"value": f"{value}v"}])
            self.assert_refused(refused, 413, "too_large")
            self.assertEqual(refused.json["record"], 2)
        [message] = self.read(stand)
        self.assertTrue((message["key"], message["value"], message["headers"]) == (key, value, headers))

    def test_gzip(self) -> None:
        """content-encoding: gzip is undone, for messages and for batches; the limit is of what comes out; broken gzip is 400, another coding 415."""
        stand = self.stand()
        packed, coded = gzip.compress(b"plain text"), {"content-encoding": "gzip"}
        self.put(stand, packed, **coded)
        batch = gzip.compress(json.dumps({"records": [{"value": "in a batch"}]}).encode())
        target, kind = f"/v1/pub/{stand.topic}/batch", {"content-type": "application/json"}
        self.assertEqual(stand.pub.request("POST", target, batch, {**coded, **kind}).status, 200)
        self.put(stand, gzip.compress(b"x" * MEBIBYTE), **coded)
        with self.unchanged(stand):
            self.assert_refused(self.send(stand, gzip.compress(b"x" * (MEBIBYTE + 1)), coded), 413, "too_large")
            self.assert_refused(self.send(stand, gzip.compress(b"\0" * 64 * MEBIBYTE), coded), 413, "too_large")
            self.assert_refused(self.send(stand, b"no gzip at all", coded), 400, "bad_body")
            self.assert_refused(self.send(stand, packed[:-3], coded), 400, "bad_body")
            self.assert_refused(self.send(stand, b"x", {"content-encoding": "br"}), 415, "unsupported_media_type")
        self.assertEqual([message["value"][:20] for message in self.drain(stand, 3)], ["plain text", "in a batch", "x" * 20])

    def test_lengths(self) -> None:
        """A chunked body is the body; one with neither length nor chunks is 411."""
        stand = self.stand()
        keys = list(stand.tenant.publish.items())
        chunked = written("POST", f"/v1/pub/{stand.topic}", [*keys, ("transfer-encoding", "chunked")], None)
        self.assertEqual(self.say(chunked + b"5\r\nhello\r\n6;ext=1\r\n there\r\n0\r\n\r\n").status, 200)
        with self.unchanged(stand):
            for target in (f"/v1/pub/{stand.topic}", f"/v1/pub/{stand.topic}/batch"):
                self.assert_refused(self.tell("POST", target, keys, None), 411, "length_required", target)
        self.assertEqual(self.values(stand), ["hello there"])

    def test_too_large_before_it_came(self) -> None:
        """A body that says it is too large is refused before it is sent: with Expect: 100-continue nothing of it is read."""
        stand = self.stand()
        lines = [*stand.tenant.publish.items(), ("content-length", str(512 * MEBIBYTE)), ("expect", "100-continue")]
        with self.unchanged(stand):
            self.assert_refused(self.tell("POST", f"/v1/pub/{stand.topic}", lines, None), 413, "too_large")
        with self.connect() as line:
            line.sendall(
                written("POST", f"/v1/pub/{stand.topic}", [*stand.tenant.publish.items(), ("content-length", "2"), ("expect", "100-continue")], None)
            )
            self.assertTrue(line.recv(1000).startswith(b"HTTP/1.1 100 "))
            line.sendall(b"ok")
            self.assertTrue(line.recv(1000).startswith(b"HTTP/1.1 200 "))
        self.assertEqual(self.values(stand), ["ok"])
