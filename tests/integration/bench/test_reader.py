"""The client that reads in large batches."""

import itertools

from twisted.trial.unittest import SynchronousTestCase

from bench.load import LoadFailed, Request
from bench.reader import bytes_of, length_of, read
from tests.integration.bench.listener import Asked, Listener

SUB = Request("GET", "/v1/sub?batchSize=1000", {"subkey": "sk"})
LARGE = b'{"offset":1},' * 40_000


class Reading(SynchronousTestCase):
    def test_until_nothing_comes(self) -> None:
        """A 204 ends a connection; each answer before it counts, however many pieces it came in."""
        numbers = itertools.count()

        def answer(asked: Asked) -> tuple[int, bytes]:
            return (200, LARGE) if next(numbers) < 6 else (204, b"")

        with Listener(answer) as listener:
            found = read(SUB, listener.port, 2, 30, b'"offset":')
        self.assertEqual((len(found.took), found.size, found.marks), (6, 6 * len(LARGE), 6 * 40_000))
        self.assertEqual({(one.target, one.headers["subkey"]) for one in listener.asked}, {(SUB.target, "sk")})

    def test_until_the_time_is_up(self) -> None:
        """What is on its way then is waited for, so that every message handed out was counted."""
        with Listener(lambda asked: (200, b'{"offset":1}')) as listener:
            found = read(SUB, listener.port, 3, 0.1, b'"offset":')
        self.assertEqual(found.marks, len(listener.asked))
        self.assertGreaterEqual(found.marks, 3)

    def test_a_refusal_ends_it(self) -> None:
        """No figure comes of an error."""
        with Listener(lambda asked: (429, b"slower")) as listener:
            self.assertRaisesRegex(LoadFailed, "429.*slower", read, SUB, listener.port, 1, 1)


class Bytes(SynchronousTestCase):
    def test_a_request_with_a_body_says_its_length(self) -> None:
        made = bytes_of(Request("POST", "/v1/pub", {"key": "k"}, b"abc"), 7)
        self.assertEqual(made, b"POST /v1/pub HTTP/1.1\r\nhost: 127.0.0.1:7\r\nkey: k\r\ncontent-length: 3\r\n\r\nabc")

    def test_the_length_of_an_answer(self) -> None:
        """In any case of letters; none is nought."""
        self.assertEqual(length_of(b"HTTP/1.1 200 OK\r\nContent-Length: 12"), 12)
        self.assertEqual(length_of(b"HTTP/1.1 204 No Content\r\nx: y"), 0)
