from twisted.internet.defer import fail

from psubd.errors import NotFound, StorageTimeout, StorageUnavailable, TopicMissing
from psubd.model import Left, Record, Redriven
from tests.manager.house import ManagerCase

LIST = "/api/v1/groups"
OFFSETS = f"{LIST}/mail/offsets"
REDRIVE = f"{LIST}/mail/redrive"


class GroupTests(ManagerCase):
    def setUp(self) -> None:
        super().setUp()
        self.application()
        self.application("mail")
        self.topic(partitions=2)
        self.bind("mail", sub=True, start="earliest")
        records = [Record("orders", b"x", partition=n % 2, timestamp=1000 * n) for n in range(10)]
        self.wait(self.storage.publish(records, "all"))

    def committed(self, group: str = "mail") -> dict[int, int]:
        return {item["partition"]: item["committed"] for item in self.ok("GET", f"{LIST}/{group}").json["items"]}

    def test_show(self) -> None:
        """A group shows its place, the end and the lag of each partition."""
        shown = self.ok("GET", f"{LIST}/mail").json
        self.assertEqual((shown["group"], shown["application"]), ("mail", "mail"))
        item = shown["items"][0]
        self.assertEqual(set(item), {"topic", "partition", "committed", "end", "lag", "leased", "oldest_ms", "node"})
        self.assertEqual([(item["committed"], item["end"], item["lag"]) for item in shown["items"]], [(0, 5, 5)] * 2)

    def test_list(self) -> None:
        """The list holds what one group's route shows; by application, its own only."""
        self.bind("shop", status=200, pub=True, sub=True)
        shown = [self.ok("GET", f"{LIST}/{name}").json for name in ("mail", "shop")]
        self.assertEqual(self.ok("GET", LIST).json, {"items": shown, "next": None})
        self.assertEqual(self.ok("GET", LIST, query="application=mail").json["items"], shown[:1])
        first = self.ok("GET", LIST, query="limit=1").json
        self.assertEqual(self.ok("GET", LIST, query=f"limit=1&cursor={first['next']}").json, {"items": shown[1:], "next": None})
        self.refused(400, "bad_parameter", "GET", LIST, query="application=a.b")

    def test_unknown(self) -> None:
        """A group that is not there, or cannot be: 404."""
        for name in ("none", "mail.none", "a.__b", "mail.", "..", ".mail"):
            self.refused(404, "no_such_route", "GET", f"{LIST}/{name}")
            self.refused(404, "no_such_route", "DELETE", f"{LIST}/{name}")

    def test_storage_away(self) -> None:
        """With the storage away the groups cannot be told: 503 for one as for the list."""
        self.storage.bounds = lambda topic: fail(StorageUnavailable("the disk is gone"))  # type: ignore[method-assign]
        for path in (LIST, f"{LIST}/mail"):
            self.assertEqual(self.call("GET", path).code, "storage_unavailable")

    def test_deleted_meanwhile(self) -> None:
        """A group that goes while the page is made is left out of it."""
        self.subscriber.group = lambda name: fail(NotFound("gone"))  # type: ignore[method-assign]
        self.assertEqual(self.ok("GET", LIST).json, {"items": [], "next": None})

    def test_reset(self) -> None:
        """The cursor goes to an end of the log, a time, or offsets; the answer says where."""
        for to, offsets in (
            ("latest", {"0": 5, "1": 5}),
            ("earliest", {"0": 0, "1": 0}),
            ({"timestamp": 3500}, {"0": 2, "1": 2}),
            ({"timestamp": 10**15}, {"0": 5, "1": 5}),
            ({"offsets": {"0": 3, "1": 1}}, {"0": 3, "1": 1}),
        ):
            self.assertEqual(self.ok("PUT", OFFSETS, {"topic": "orders", "to": to}).json, {"offsets": offsets})
            self.assertEqual(self.committed(), {int(partition): offset for partition, offset in offsets.items()})

    def test_some_partitions(self) -> None:
        """Named partitions move, the others stay."""
        self.assertEqual(self.ok("PUT", OFFSETS, {"topic": "orders", "partitions": [1], "to": "latest"}).json, {"offsets": {"1": 5}})
        self.assertEqual(self.committed(), {0: 0, 1: 5})
        self.ok("PUT", OFFSETS, {"topic": "orders", "to": {"offsets": {"0": 2}}})
        self.assertEqual(self.committed(), {0: 2, 1: 5})

    def test_dry_run(self) -> None:
        """A dry run says where it would go, and changes nothing."""
        before = self.state()
        reply = self.ok("PUT", OFFSETS, {"topic": "orders", "to": "latest"}, query="dry_run=true")
        self.assertEqual(reply.json, {"offsets": {"0": 5, "1": 5}})
        self.assertEqual(self.state(), before)

    def test_bad_resets(self) -> None:
        """What is no place is refused, and the cursor stays."""
        for to in (
            "now",
            None,
            7,
            {},
            {"timestamp": -1},
            {"timestamp": 1, "offsets": {"0": 1}},
            {"offsets": {}},
            {"offsets": {"x": 1}},
            {"offsets": {"0": -1}},
            {"time": 1},
        ):
            self.refused(400, "bad_body", "PUT", OFFSETS, {"topic": "orders", "to": to})
        for body in ({"to": "latest"}, {"topic": "orders"}, {"topic": "orders", "to": "latest", "partitions": []}, {"topic": "a/b", "to": "latest"}):
            self.refused(400, "bad_body", "PUT", OFFSETS, body)
        self.refused(400, "bad_body", "PUT", OFFSETS, {"topic": "orders", "partitions": [0], "to": {"offsets": {"1": 1}}})
        self.refused(400, "bad_parameter", "PUT", OFFSETS, {"topic": "orders", "to": "latest"}, query="dry_run=yes")

    def test_out_of_the_log(self) -> None:
        """A partition or an offset that is not there, and a topic that is not bound, are refused."""
        for body in (
            {"topic": "orders", "partitions": [2], "to": "latest"},
            {"topic": "orders", "to": {"offsets": {"0": 6}}},
            {"topic": "orders", "to": {"offsets": {"2": 0}}},
        ):
            before = self.state()
            self.assertEqual(self.call("PUT", OFFSETS, body).status, 400, body)
            self.assertEqual(self.state(), before)
        self.topic("bills")
        self.refused(403, "topic_not_bound", "PUT", OFFSETS, {"topic": "bills", "to": "latest"})

    def test_named_group_before_its_first_read(self) -> None:
        """A named group can be put somewhere before anybody reads with it."""
        self.ok("PUT", f"{LIST}/mail.night/offsets", {"topic": "orders", "to": {"offsets": {"0": 4, "1": 4}}})
        self.assertEqual(self.committed("mail.night"), {0: 4, 1: 4})
        names = [item["group"] for item in self.ok("GET", LIST).json["items"]]
        self.assertEqual(names, ["mail", "mail.night"])

    def test_delete(self) -> None:
        """A deleted group's cursors are gone."""
        self.ok("PUT", f"{LIST}/mail.night/offsets", {"topic": "orders", "to": "latest"})
        self.ok("DELETE", f"{LIST}/mail.night", status=204)
        self.refused(404, "no_such_route", "GET", f"{LIST}/mail.night")
        self.assertEqual(self.wait(self.storage.committed("mail.night")), {})

    def test_redrive(self) -> None:
        """The group, the dead-letter topic and the limit go to the redriver, in the name of the token; what it did is the answer."""
        self.redriver.outcome = Redriven(3, (Left(0, 17, "not sealed"),))
        reply = self.ok("POST", REDRIVE, {"topic": "dead", "limit": 10_000})
        self.assertEqual(reply.json, {"moved": 3, "left": [{"partition": 0, "offset": 17, "why": "not sealed"}]})
        self.redriver.outcome = Redriven(0)
        self.assertEqual(self.ok("POST", f"{LIST}/mail.night/redrive", {"topic": "dead"}).json, {"moved": 0, "left": []})
        who = "token root from 10.0.0.7"
        self.assertEqual(self.redriver.asked, [("mail", "dead", 10_000, who), ("mail.night", "dead", 100, who)])

    def test_failed_redrives(self) -> None:
        """What the redriver fails with is told."""
        for failure, status in (
            (NotFound("none"), 404),
            (TopicMissing("gone"), 404),
            (StorageUnavailable("away"), 503),
            (StorageTimeout("late"), 504),
        ):
            self.redriver.outcome = failure
            self.assertEqual(self.refused(status, failure.code, "POST", REDRIVE, {"topic": "dead"}).json["detail"], failure.detail)

    def test_refused_redrives(self) -> None:
        """By admins only, of a group that can be, with a limit from 1 to 10,000 and nothing more: else nobody is asked."""
        self.refused(403, "bad_credentials", "POST", REDRIVE, {"topic": "dead"}, token=self.viewer)
        self.refused(404, "no_such_route", "POST", f"{LIST}/a.__b/redrive", {"topic": "dead"})
        for body in (
            {},
            {"limit": 1},
            {"topic": "a/b"},
            {"topic": "dead", "limit": 0},
            {"topic": "dead", "limit": 10_001},
            {"topic": "dead", "more": 1},
        ):
            self.refused(400, "bad_body", "POST", REDRIVE, body)
        self.assertEqual(self.redriver.asked, [])
