"""A connection that breaks while an answer in explicit mode is written (contract, section 3)."""

import json
import socket

from psubd.testing.http_contract.lease_steps import HOUR, LeaseSteps, values_of
from psubd.testing.http_contract.steps import MEBIBYTE, Stand, broken, written

LARGE = b"\0" * MEBIBYTE
"""6 MiB of JSON: more than the system takes for a client that does not read."""


class HandoversContract(LeaseSteps):
    """What was not wholly handed over is given back at once, in order, and no attempt is counted."""

    def begun(self, stand: Stand, count: int, accept: str, ack: str = "explicit") -> socket.socket:
        """A connection on which an answer with so many messages, the second of them large, has begun to come."""
        line = self.connect(receive_buffer=4096)
        query = f"/v1/sub?ack={ack}&batchSize={count}&timeout=20000&maxBytes=67108864" + (f"&ackTimeout={HOUR}" if ack == "explicit" else "")
        line.sendall(written("GET", query, [*stand.tenant.subscribe.items(), ("accept", accept)], None))
        return line

    def filled(self, values: tuple[bytes, ...] = (b"first", LARGE, b"last")) -> Stand:
        """A stand with these messages, all at hand: the group has looked at them, as a storage may take a moment to."""
        stand = self.stand()
        self.put(stand, *values)
        messages = self.lease(stand, len(values), maxBytes=67108864)
        self.assertEqual(stand.sub.send("PUT", f"/v1/groups/{stand.id}/offsets", {"topic": stand.topic, "to": "earliest"}).status, 200)
        self.assertEqual(len(messages), len(values))
        return stand

    def test_json_broken_off(self) -> None:
        """The whole answer comes again; its tokens were nobody's."""
        stand = self.filled()
        before = self.metric("psubd_given_back_total")
        line = self.begun(stand, 3, "application/json")
        self.assertTrue(line.recv(16).startswith(b"HTTP/1.1 200"))
        broken(line)
        self.until(lambda: self.metric("psubd_given_back_total") > before, "it is given back")
        again = self.lease(stand, 3, maxBytes=67108864)
        self.assertEqual([(message["value"][-5:], message["attempt"]) for message in again], [("first", 1), ("\0" * 5, 1), ("last", 1)])
        self.ack(stand, *again)

    def test_lines_broken_off(self) -> None:
        """Messages whose line was handed over keep their lease; the others come again."""
        stand = self.filled()
        before = self.metric("psubd_given_back_total")
        line = self.begun(stand, 3, "application/x-ndjson")
        head, _, body = self.read_until(line, b"\r\n\r\n").partition(b"\r\n\r\n")
        self.assertTrue(head.startswith(b"HTTP/1.1 200"), head)
        while b"\n" not in body:
            body += line.recv(1000)
        first = json.loads(body.partition(b"\n")[0])
        broken(line)
        self.until(lambda: self.metric("psubd_given_back_total") > before, "they are given back")
        again = self.lease(stand, 2, maxBytes=67108864)
        self.assertEqual([(message["value"][-4:], message["attempt"]) for message in again], [("\0" * 4, 1), ("last", 1)])
        self.assertEqual((first["value"], self.out(stand)), ("first", 3))
        self.ack(stand, first, *again)
        self.all_done(stand)

    def test_lines_in_auto_mode_broken_off(self) -> None:
        """Nothing of it is done: half an answer may have been read by nobody."""
        stand = self.filled()
        before = self.metric("psubd_given_back_total")
        line = self.begun(stand, 3, "application/x-ndjson", "auto")
        self.assertIn(b'"first"', self.read_until(line, b'"first"'))
        broken(line)
        self.until(lambda: self.metric("psubd_given_back_total") > before, "all is given back")
        got = [(value[-5:], attempt) for value, attempt in ((message["value"], message["attempt"]) for message in self.drain(stand, 3))]
        self.assertEqual(got, [("first", 1), ("\0" * 5, 1), ("last", 1)])

    def test_handed_over_is_handed_over(self) -> None:
        """An answer that was wholly handed over keeps its leases though its connection breaks then."""
        stand = self.filled((b"a", b"b"))
        line = self.begun(stand, 2, "application/json")
        self.read_until(line, b"]}")
        broken(line)
        self.put(stand, b"c")
        self.assertEqual(values_of(self.lease(stand, 1)), ["c"])
        self.assertEqual(self.out(stand), 3)

    def read_until(self, line: socket.socket, mark: bytes) -> bytes:
        """What comes, up to the mark and somewhat beyond."""
        found = b""
        while mark not in found:
            more = line.recv(1000)
            self.assertTrue(more, found[-200:])
            found += more
        return found
