"""Heads of answers: what is made once a second, and what is remembered."""

from psubd.model import Answer
from psubd.wire import replies
from psubd.wire.replies import MOST_USUAL, Replies, check
from tests.wire.peer import WireCase, get


class Heads(WireCase):
    def date(self) -> str:
        (date,) = self.peer().send(get()).response().headers["date"]
        return date

    def test_date(self) -> None:
        """The date is that of the moment, to the second, whatever was answered before."""
        seen = []
        for _ in range(5):
            seen.append((self.date(), replies.datetimeToString(self.clock.epoch_ms() // 1000).decode()))
            self.clock.advance(400)
        self.assertEqual([ours for ours, _ in seen], [true for _, true in seen])
        self.assertEqual(len(set(seen)), 2)

    def test_status(self) -> None:
        """Each status has its own line, with its reason where it has one, within one second."""
        for status, line in (
            (200, b"HTTP/1.1 200 OK\r\n"),
            (202, b"HTTP/1.1 202 Accepted\r\n"),
            (200, b"HTTP/1.1 200 OK\r\n"),
            (299, b"HTTP/1.1 299 \r\n"),
        ):
            self.endpoint.answer = Answer(status=status)
            peer = self.peer().send(get())
            peer.response()
            self.assertTrue(peer.raw.startswith(line))

    def test_kinds(self) -> None:
        """A length, a stream, nothing: each says how it ends, and whether the connection does."""
        made = Replies(self.clock)
        answer = Answer(headers=[(b"content-type", b"text/plain"), (b"x-a", b"b")])
        check(answer)
        lines = {
            (5, False, False): b"content-length: 5",
            (5, False, True): b"content-length: 5\r\nconnection: close",
            (None, True, False): b"transfer-encoding: chunked",
            (None, False, True): b"connection: close",
        }
        for (length, chunked, close), end in lines.items():
            head = made.head(answer, b"id", self.clock.elapsed_ms(), length, chunked, close)
            self.assertTrue(head.endswith(b"x-request-id: id\r\ncontent-type: text/plain\r\nx-a: b\r\n" + end + b"\r\n\r\n"), head)

    def test_usual_types(self) -> None:
        """Types that were checked are remembered, not too many, and one that is bad never."""
        self.addCleanup(replies.USUAL.clear)
        for number in range(MOST_USUAL + 10):
            check(Answer(headers=[(b"content-type", b"a/b%d" % number)]))
        self.assertLessEqual(len(replies.USUAL), MOST_USUAL)
        for _ in range(2):
            with self.assertRaises(replies.BadAnswer):
                check(Answer(headers=[(b"content-type", b"a\r\nb: c")]))
        for _ in range(2):
            self.endpoint.answer = Answer(headers=[(b"content-type", b"a/new")])
            self.assertEqual(self.peer().send(get()).response().headers["content-type"], ["a/new"])
