"""Requests as such: routes, methods, limits, what every answer carries (contract, preamble and section 6)."""

import contextlib
import http.client
from typing import BinaryIO

from psubd.testing.daemon import Reply
from psubd.testing.http_contract.steps import Steps, heard, written

ALWAYS = {"cache-control": "no-store", "x-content-type-options": "nosniff"}


class RequestsContract(Steps):
    """What does not depend on a storage, and must hold whatever serves the data port."""

    def test_every_answer(self) -> None:
        """Good or bad, an answer is not to be stored or sniffed, and has the request's id: the client's own if it is sane."""
        stand = self.stand()
        for reply in (
            self.send(stand, b"x"),
            self.send(stand, b"x", {"acks": "9"}),
            self.poll(stand, "timeout=5000"),
            self.poll(stand),
            self.data().request("GET", "/v1/whoami"),
            self.data().request("GET", "/nowhere"),
        ):
            self.assertEqual({name: reply.headers.get(name) for name in ALWAYS}, ALWAYS, reply)
            self.assertTrue(reply.headers["x-request-id"], reply)
        self.assertEqual(self.send(stand, b"x", {"x-request-id": "mine-1"}).headers["x-request-id"], "mine-1")
        self.assertNotEqual(self.send(stand, b"x", {"x-request-id": "a b<c>" * 200}).headers["x-request-id"], "a b<c>" * 200)

    def test_routes_and_methods(self) -> None:
        """No such route is 404, another method 405 with Allow, both before any credentials; HEAD where GET changes nothing; OPTIONS tells."""
        stand, stranger = self.stand(), self.data()
        self.put(stand, b"here")
        with self.unchanged(stand):
            for target in ("/v1", "/v1/pub/a/b", "/v1/sub/", "/v1/pub/", "/v2/sub", "/v1/topics/a%2Fb", "/v1/topics/a%00", "/v1/topics/%FF"):
                self.assert_refused(stranger.request("GET", target), 404, "no_such_route", target)
            for method, target, allowed in (
                ("GET", "/v1/pub", {"POST", "OPTIONS"}),
                ("PUT", f"/v1/pub/{stand.topic}", {"POST", "OPTIONS"}),
                ("DELETE", "/v1/sub", {"GET", "POST", "OPTIONS"}),
                ("HEAD", "/v1/sub", {"GET", "POST", "OPTIONS"}),
                ("BREW", "/v1/whoami", {"GET", "HEAD", "OPTIONS"}),
            ):
                reply = stand.sub.request(method, target)
                self.assertEqual(reply.status, 405, (method, target, reply))
                self.assertLessEqual(allowed - {"OPTIONS"}, set(reply.headers["allow"].split(", ")), (method, target))
            told = stranger.request("OPTIONS", "/v1/sub")
            self.assertEqual((told.status, told.body), (204, b""))
            self.assertLessEqual({"GET", "POST"}, set(told.headers["allow"].split(", ")))
            for target in ("/v1/whoami", "/v1/topics", f"/v1/topics/{stand.topic}", "/alive", "/ready"):
                got, head = stand.sub.request("GET", target), stand.sub.request("HEAD", target)
                self.assertEqual((head.status, head.body, head.headers.get("content-length")), (200, b"", got.headers.get("content-length")), target)
        self.assertEqual(self.values(stand), ["here"])

    def test_limits(self) -> None:
        """A target over 8 KiB is 414; a head over 32 KiB, or of more than 100 lines, 431; JSON that nests deeper than 64 is 400."""
        stand = self.stand()
        with self.unchanged(stand):
            self.assert_refused(self.tell("GET", f"/v1/sub?group={'g' * 8200}", [], None), 414, "too_large")
            self.assert_refused(self.publish_lines(stand, b"x", [("header.a", "v" * 33_000)]), 431, "head_too_large")
            self.assert_refused(self.publish_lines(stand, b"x", [(f"header.a{number}", "v") for number in range(100)]), 431, "head_too_large")
            deep = b'{"topic": ' + b"[" * 65 + b"]" * 65 + b"}"
            self.assert_refused(stand.sub.request("POST", "/v1/sub", deep, {"content-type": "application/json"}), 400, "bad_body")

    def test_framing_that_could_be_read_two_ways(self) -> None:
        """Two lengths, a length with chunks, another coding, chunks on HTTP/1.0, none or two Hosts, bare CR or LF, a folded line, a blank before
        the colon, NUL: 400, the connection is closed, and what follows on it is never taken for a request."""
        stand = self.stand()
        keys = "".join(f"{name}: {value}\r\n" for name, value in stand.tenant.publish.items())
        start = f"POST /v1/pub/{stand.topic} HTTP/1.1\r\n"
        smuggled = f"{start}host: a\r\n{keys}content-length: 8\r\n\r\nsmuggled".encode()
        wrong = [
            f"{start}host: a\r\n{keys}content-length: 1\r\ncontent-length: 2\r\n\r\nx",
            f"{start}host: a\r\n{keys}content-length: 1, 1\r\n\r\nx",
            f"{start}host: a\r\n{keys}content-length: 5\r\ntransfer-encoding: chunked\r\n\r\n0\r\n\r\n",
            f"{start}host: a\r\n{keys}transfer-encoding: gzip, chunked\r\n\r\n0\r\n\r\n",
            f"{start.replace('1.1', '1.0')}host: a\r\n{keys}transfer-encoding: chunked\r\n\r\n0\r\n\r\n",
            f"{start}{keys}content-length: 1\r\n\r\nx",
            f"{start}host: a\r\nhost: b\r\n{keys}content-length: 1\r\n\r\nx",
            f"{start}host: a\r\n{keys}header.a: 1\n2\r\ncontent-length: 1\r\n\r\nx",
            f"{start}host: a\r\n{keys}header.a: 1\r2\r\ncontent-length: 1\r\n\r\nx",
            f"{start}host: a\r\n{keys}header.a: 1\r\n 2\r\ncontent-length: 1\r\n\r\nx",
            f"{start}host: a\r\n{keys}header.a : 1\r\ncontent-length: 1\r\n\r\nx",
            f"{start}host: a\r\n{keys}header.a: 1\0\r\ncontent-length: 1\r\n\r\nx",
            f"{start}host: a\r\n{keys}content-length: +1\r\n\r\nx",
        ]
        with self.unchanged(stand):
            for request in wrong:
                self.assertEqual((self.closed_after(request.encode() + smuggled).status), 400, request)

    def closed_after(self, request: bytes) -> Reply:
        """The answer, after which the connection must end."""
        with self.connect() as line:
            line.sendall(request)
            reply = heard(line, "POST")
            with contextlib.suppress(ConnectionResetError):
                self.assertEqual(line.recv(1), b"", request)
        return reply

    def test_one_connection_many_requests(self) -> None:
        """Requests that are sent in one go are answered in turn, each its own answer; a refusal keeps the connection."""
        stand = self.stand()
        keys = list(stand.tenant.publish.items())
        target = f"/v1/pub/{stand.topic}"
        requests = [written("POST", target, [*keys, ("acks", acks)], acks.encode()) for acks in ("all", "no", "1", "0", "all")]
        with self.connect() as line:
            line.sendall(b"".join(requests))
            with line.makefile("rb") as answers:
                statuses = [next_status(answers) for _ in requests]
        self.assertEqual(statuses, [200, 400, 200, 202, 200])
        self.assertEqual(len(self.drain(stand, 4)), 4)


def next_status(answers: BinaryIO) -> int:
    """The status of the next answer; all of it is read, and no more."""
    status = int(answers.readline().split()[1])
    answers.read(int(http.client.parse_headers(answers)["content-length"]))
    return status
