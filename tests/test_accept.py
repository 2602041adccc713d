"""What a client accepts."""

from twisted.trial.unittest import SynchronousTestCase

from psubd import accept

OFFERS = JSON, LINES, OCTETS = ("application/json", "application/x-ndjson", "application/octet-stream")


def best(*lines: str) -> str | None:
    return accept.best([(b"accept", line.encode()) for line in lines], OFFERS)


class AcceptTests(SynchronousTestCase):
    def test_default(self) -> None:
        """Without Accept, and with a wildcard, JSON."""
        for said in ((), ("*/*",), ("application/*",), ("text/html, */*;q=0.1",)):
            self.assertEqual(best(*said), JSON)

    def test_named(self) -> None:
        """A type that is named is given, whatever its case and its parameters."""
        self.assertEqual(best("application/octet-stream"), OCTETS)
        self.assertEqual(best("Application/X-NDJSON"), LINES)
        self.assertEqual(best("application/json; charset=utf-8"), JSON)

    def test_weights(self) -> None:
        """The heavier wins; the most specific range gives the weight; 0 forbids."""
        self.assertEqual(best("application/json;q=0.5, application/x-ndjson;q=0.8"), LINES)
        self.assertEqual(best("*/*;q=0.9, application/json;q=0.1"), LINES)
        self.assertEqual(best("application/json;q=0, */*"), LINES)
        self.assertEqual(best("application/octet-stream;q=0.2, application/*;q=0.1"), OCTETS)
        self.assertEqual(best("application/json, application/octet-stream"), JSON)

    def test_many_lines(self) -> None:
        """Accept is a list: its lines count together."""
        self.assertEqual(best("text/html", "application/octet-stream"), OCTETS)

    def test_none(self) -> None:
        """What is not given: event streams and frames (not built), other types, weights of 0, an empty or a broken Accept."""
        for said in (
            "text/event-stream",
            "application/vnd.psubd.frames",
            "text/html, text/*",
            "*/*;q=0",
            "application/json;q=0.000",
            "",
            "json",
            "*/json",
            "application/json;q=2",
            "application/json;q=x",
            "application/json;q=-1",
            "application/json;q=nan",
        ):
            self.assertIsNone(best(said), said)

    def test_broken_element(self) -> None:
        """A broken element does not take the others along."""
        self.assertEqual(best("application/x-ndjson;q=nan, /, application/octet-stream;q=0.1"), OCTETS)

    def test_order(self) -> None:
        """The first of equals is given, also where a stream is among the offers."""
        offers = ("text/event-stream", "application/json")
        for said, given in (
            ("text/html,application/xhtml+xml,*/*;q=0.8", "text/event-stream"),
            ("application/json;q=0.9, text/event-stream;q=0.8", "application/json"),
            ("text/*;q=0.1, application/*", "application/json"),
            ("*/*, text/event-stream;q=0", "application/json"),
        ):
            self.assertEqual(accept.best([(b"accept", said.encode())], offers), given, said)
