import msgspec

from psubd.manager.events import HEARTBEAT_MS, MOST_BUFFERED, MOST_STREAMS
from psubd.manager.sessions import LASTS_MS
from psubd.model import Poll
from psubd.registry.mirror import KEPT_CHANGES
from tests.manager.house import ManagerCase, Outlet

PATH = "/api/v1/events"
JSON = {"accept": "application/json"}


def ids(outlet: Outlet) -> list[int]:
    return [int(event["id"]) for event in outlet.events()]


class StreamTests(ManagerCase):
    def test_changes(self) -> None:
        """Each change is an event: its serial, its kind, who, when, what and where."""
        outlet = self.stream()
        self.application()
        (event,) = outlet.events()
        data = msgspec.json.decode(event["data"])
        self.assertEqual(int(event["id"]), data["serial"])
        self.assertEqual(data["actor"], "token root from 10.0.0.7")
        self.assertEqual(data["at_ms"], self.clock.epoch_ms())
        self.assertTrue(data["what"].startswith(event["event"]))
        self.assertIn("/applications/shop", data["paths"])
        self.assertEqual(set(data), {"serial", "at_ms", "actor", "what", "paths"})

    def test_from_now(self) -> None:
        """Without a last event the stream begins now; it says at once that it stands."""
        outlet = self.stream()
        self.assertEqual(outlet.written, b"retry: 3000\n\n")

    def test_resume(self) -> None:
        """With the last event's id, what came after it is sent first, each once, then what happens."""
        outlet = self.stream()
        for n in range(5):
            self.application(f"a{n}")
        seen = ids(outlet)
        resumed = self.stream(headers={"last-event-id": str(seen[1])})
        self.assertEqual(ids(resumed), seen[2:])
        self.application("more")
        self.assertEqual(ids(resumed), ids(outlet)[2:])
        self.assertEqual(ids(self.stream(headers={"last-event-id": str(ids(outlet)[-1])})), [])

    def test_gap(self) -> None:
        """Changes that are no longer kept are told as a gap, and the kept ones follow."""
        for _ in range(KEPT_CHANGES + 10):
            self.ok("POST", "/api/v1/applications/shop/rotate", {"which": "secret"}) if _ else self.application()
        newest = self.registry.snapshot().serial
        outlet = self.stream(headers={"last-event-id": "1"})
        first = outlet.events()[0]
        self.assertEqual((first["event"], first["id"]), ("gap", str(newest - KEPT_CHANGES)))
        self.assertEqual(ids(outlet), list(range(newest - KEPT_CHANGES, newest + 1)))
        self.assertEqual(ids(self.stream(headers={"last-event-id": str(newest - KEPT_CHANGES)})), ids(outlet)[1:])

    def test_other_registry(self) -> None:
        """An id from the future is another registry's: a gap, and on from now."""
        outlet = self.stream(headers={"last-event-id": "999999"})
        (event,) = outlet.events()
        self.assertEqual((event["event"], event["id"]), ("gap", str(self.registry.snapshot().serial)))
        self.application()
        self.assertEqual(len(outlet.events()), 2)

    def test_bad_ids(self) -> None:
        """An id that is none: 400."""
        for sent in ("x", "-1", "1.0", "1.x", "1.2.3", ".1", "", "99999999999999999999"):
            self.refused(400, "bad_header", "GET", PATH, headers={"last-event-id": sent})
        self.refused(400, "bad_parameter", "GET", PATH, query="limit=5")

    def test_places_missing(self) -> None:
        """Partitions that were added are read from their first message by a group that is there, and an event says so, to who comes later too."""
        self.application()
        self.topic()
        self.bind("shop", pub=True, sub=True, status=200)
        grant = self.gate.grant_of("shop")
        assert grant is not None
        self.wait(self.subscriber.poll(grant, Poll("shop", timeout_ms=0)))
        outlet, before = self.stream(), self.registry.snapshot().serial
        self.ok("PATCH", "/api/v1/topics/orders", {"partitions": 3})
        missing, altered = outlet.events()
        self.assertEqual((missing["event"], altered["event"]), ("group.places_missing", "topic.altered"))
        data = msgspec.json.decode(missing["data"])
        self.assertEqual(data["what"], "group.places_missing shop orders partitions 1-2: no place was kept, read from the first message")
        self.assertEqual((data["actor"], data["paths"]), ("psubd", []))
        self.assertEqual(self.stream(headers={"last-event-id": str(before)}).events(), [missing, altered])

    def test_heartbeat(self) -> None:
        """A comment every 15 s keeps the connection."""
        outlet = self.stream()
        before = outlet.written
        self.clock.advance(HEARTBEAT_MS - 1)
        self.assertEqual(outlet.written, before)
        self.clock.advance(1)
        self.clock.advance(HEARTBEAT_MS)
        self.assertEqual(outlet.written, before + b":\n\n:\n\n")

    def test_slow_client(self) -> None:
        """A client that takes nothing is let go when it is a mebibyte behind; the others go on."""
        slow, other = self.stream(), self.stream()
        slow.buffered = MOST_BUFFERED
        self.application("a")
        self.assertFalse(slow.finished)
        slow.buffered += 1
        self.application("b")
        self.assertTrue(slow.finished)
        self.assertEqual((len(slow.events()), len(other.events())), (1, 2))

    def test_token_ends(self) -> None:
        """A token that ends takes its streams with it, before they tell more."""
        watching, other = self.stream(token=self.viewer), self.stream()
        self.ok("DELETE", "/api/v1/tokens/watcher", status=204)
        self.assertTrue(watching.finished)
        self.assertEqual((len(watching.events()), len(other.events())), (0, 1))

    def test_session_ends(self) -> None:
        """A session's stream ends with it."""
        cookie = self.ok("POST", "/api/v1/session", {"token": self.admin}, token=None).headers["set-cookie"].split(";")[0]
        outlet = self.stream(token=None, headers={"cookie": cookie})
        self.clock.advance(LASTS_MS - 1)
        self.assertFalse(outlet.finished)
        self.clock.advance(HEARTBEAT_MS)
        self.assertTrue(outlet.finished)

    def test_client_leaves(self) -> None:
        """A client that went away is forgotten: nothing is written, no timer stays."""
        timers = len(self.clock.reactor.getDelayedCalls())
        outlet = self.stream()
        outlet.lost()
        written = outlet.written
        self.application()
        self.assertEqual(outlet.written, written)
        self.assertEqual(len(self.clock.reactor.getDelayedCalls()), timers)

    def test_client_left_before(self) -> None:
        """A client that was gone before the stream began leaves nothing behind either."""
        timers = len(self.clock.reactor.getDelayedCalls())
        reply = self.ok("GET", PATH)
        outlet = Outlet()
        outlet.on_lost = lambda lost: lost()  # type: ignore[method-assign]
        assert reply.answer is not None
        assert reply.answer.stream is not None
        reply.answer.stream(outlet)
        self.application()
        self.assertEqual(outlet.written, b"")
        self.assertEqual(len(self.clock.reactor.getDelayedCalls()), timers)

    def test_bound(self) -> None:
        """Open streams are bounded; one that ends makes room."""
        open = [self.stream() for _ in range(MOST_STREAMS)]
        self.refused(503, "over_budget", "GET", PATH)
        open[0].lost()
        self.stream()


class PageTests(ManagerCase):
    def test_newest_first(self) -> None:
        """As JSON: the last changes, the newest first, in pages."""
        for n in range(7):
            self.application(f"a{n}")
        newest = self.registry.snapshot().serial
        seen: list[int] = []
        cursor = ""
        while True:
            page = self.ok("GET", PATH, headers=JSON, query=f"limit=3{cursor}").json
            seen += [item["serial"] for item in page["items"]]
            if page["next"] is None:
                break
            cursor = f"&cursor={page['next']}"
        self.assertEqual(seen, list(range(newest, 0, -1)))

    def test_refusals(self) -> None:
        """A cursor of another list, and a type that it does not have."""
        self.application("a")
        self.application("b")
        cursor = self.ok("GET", "/api/v1/applications", query="limit=1").json["next"]
        for query in (f"cursor={cursor}", "cursor=x", "limit=0"):
            self.refused(400, "bad_parameter", "GET", PATH, headers=JSON, query=query)
        self.refused(406, "not_acceptable", "GET", PATH, headers={"accept": "text/html"})
