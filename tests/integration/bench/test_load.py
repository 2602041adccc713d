"""What a server gets from wrk."""

import re
from collections.abc import Callable

from twisted.trial.unittest import SynchronousTestCase

from bench import load
from bench.load import LoadFailed, Request
from bench.samples import Sample
from tests.integration.bench.listener import Asked, Listener
from tests.integration.bench.needs import need_wrk

SHORT_S = 0.3
PUBLISH = Request("POST", "/v1/pub", {"topic.id": "t", "acks": "all"}, b"x" * 100)


class Sent(SynchronousTestCase):
    """What a server gets from wrk."""

    def setUp(self) -> None:
        need_wrk()

    def asked(self, script: str, answer: Callable[[Asked], tuple[int, bytes]] = lambda asked: (200, b"{}")) -> tuple[Sample, list[Asked]]:
        with Listener(answer) as listener:
            sample = load.run(script, listener.port, 2, SHORT_S, 0)
            return sample, listener.asked

    def test_one_request_again_and_again(self) -> None:
        """Method, target, headers and body are those that were asked for, each time."""
        sample, asked = self.asked(load.same(PUBLISH))
        self.assertGreater(sample.rate or 0, 0)
        self.assertEqual({(one.method, one.target, one.headers["topic.id"], one.body) for one in asked}, {("POST", "/v1/pub", "t", PUBLISH.body)})

    def test_heads_that_differ(self) -> None:
        """No two requests have the same key or traceparent, and these are well formed."""
        _, asked = self.asked(load.differing(PUBLISH))
        self.assertEqual(len({one.headers["key"] for one in asked}), len(asked))
        self.assertEqual(len({one.headers["traceparent"] for one in asked}), len(asked))
        self.assertTrue(all(re.fullmatch("00-[0-9a-f]{32}-[0-9a-f]{16}-01", one.headers["traceparent"]) for one in asked))
        self.assertEqual({one.body for one in asked}, {PUBLISH.body})

    def test_requests_in_turn(self) -> None:
        """Each is sent as often as the others, but for the last round."""
        _, asked = self.asked(load.rotating([PUBLISH._replace(headers={"topic.id": name}) for name in "abc"]))
        counts = [sum(one.headers["topic.id"] == name for one in asked) for name in "abc"]
        self.assertLessEqual(max(counts) - min(counts), 2)

    def test_what_was_read_is_acked(self) -> None:
        """Each token of an answer is sent once, in the body of an ack."""
        tokens = (f"token-{number}" for number in range(10**9))

        def answer(asked: Asked) -> tuple[int, bytes]:
            return (200, b'{"ack":"%s"}' % next(tokens).encode()) if asked.method == "GET" else (200, b"{}")

        ack = Request("POST", "/v1/ack", {"content-type": "application/json"}, b'{"tokens": ["%s"]}')
        _, asked = self.asked(load.read_and_ack(Request("GET", "/v1/sub"), ack, '"ack":"([^"]+)"'), answer)
        acks = [one.body for one in asked if one.method == "POST"]
        reads = len(asked) - len(acks)
        self.assertGreater(len(acks), 0)
        self.assertEqual(len(set(acks)), len(acks))
        self.assertLessEqual(set(acks), {b'{"tokens": ["token-%d"]}' % number for number in range(reads)})
        self.assertLessEqual(reads - len(acks), 4)  # two connections, and what was on its way at the end

    def test_a_refusal_is_no_figure(self) -> None:
        """A server that refuses quickly is not taken for a fast one."""
        self.assertRaises(LoadFailed, self.asked, load.same(PUBLISH), lambda asked: (503, b"{}"))

    def test_a_server_that_is_not_there(self) -> None:
        with Listener() as listener:
            port = listener.port
        self.assertRaises(LoadFailed, load.run, load.same(PUBLISH), port, 1, SHORT_S, 0)
