from typing import Any

from psubd.model import Commit, Position, Record, StoredTopic, TopicPartition, TopicSpec
from psubd.storage.sqlite.requests import Append, Close, Create, Keep, Probe, Report, SweepNow
from psubd.storage.sqlite.writer import BATCH_BYTES, Writer
from tests.storage.sqlite.rooms import NOW, StoreCase


class WriterTests(StoreCase):
    """`Writer.run` on the test's own thread: what was put before is done, then it ends."""

    def setUp(self) -> None:
        super().setUp()
        self.reports: list[Report] = []
        self.writer = Writer(self.room.store, self.reports.append)

    def run_with(self, *requests: Any) -> None:
        for request in (*requests, Close()):
            self.writer.put(request)
        self.writer.run()

    def append(self, value: bytes, size: int = 1, ticket: Any = None) -> Append:
        return Append([Record("t", value, partition=0)], NOW, size, ticket)

    def outcomes(self) -> dict[Any, Any]:
        return {ticket: outcome for report in self.reports for ticket, outcome in report.answers}

    def test_all_that_waits_shares_a_transaction(self) -> None:
        """A hundred publishes and a commit that wait together: one report, one transaction."""
        self.room.create("t")
        before = self.room.sample("psubd_storage_transactions_total")
        self.run_with(*[self.append(b"%d" % number, ticket=number) for number in range(100)], Keep("g", {TopicPartition("t", 0): Commit(1)}))
        self.assertEqual((1, before + 1), (len(self.reports), self.room.sample("psubd_storage_transactions_total")))
        self.assertEqual(list(range(100)), [self.outcomes()[number][0].offset for number in range(100)])
        self.assertEqual(100, self.reports[0].released)

    def test_order_is_kept_across_kinds(self) -> None:
        """A publish put after the create that it needs is stored; one put before is not."""
        self.run_with(self.append(b"early", ticket="early"), Create(TopicSpec("t"), "made"), self.append(b"late", ticket="late"))
        outcomes = self.outcomes()
        self.assertIsInstance(outcomes["made"], StoredTopic)
        self.assertNotIsInstance(outcomes["early"][0], Position)
        self.assertEqual(0, outcomes["late"][0].offset)

    def test_a_transaction_is_bounded(self) -> None:
        """No more than BATCH_BYTES of payload wait on one commit."""
        self.room.create("t")
        before = self.room.sample("psubd_storage_transactions_total")
        self.run_with(*[self.append(b"x", BATCH_BYTES // 2) for _ in range(6)])
        self.assertEqual(before + 3, self.room.sample("psubd_storage_transactions_total"))

    def test_publishes_go_on_during_a_sweep(self) -> None:
        """A sweep of many portions lets what waits have its turn between them."""
        self.room.create("t", retention_ms=1000)
        self.room.append(*[Record("t", b"x", partition=0, timestamp=NOW - 5000)] * 9000)
        self.run_with(SweepNow(NOW), *[request for number in range(3) for request in (self.append(b"n", ticket=number), Probe())])
        kinds = ["sweep" if report.moved and not report.answers else "publish" for report in self.reports if report.moved]
        self.assertLess(kinds.index("sweep"), len(kinds) - 1 - kinds[::-1].index("publish"), kinds)
        self.assertEqual([9000, 9001, 9002], [self.outcomes()[number][0].offset for number in range(3)])

    def test_a_sweep_that_fails_is_reported_and_ends(self) -> None:
        """The fault is told; the writer goes on, and the next sweep works."""
        self.room.create("t", retention_ms=1000)
        self.room.put("t", b"old", timestamp=NOW - 5000)
        self.room.faults.before["COMMIT"] = ["SQLITE_FULL"]
        self.run_with(SweepNow(NOW))
        self.assertIsNotNone(self.reports[-1].fault)
        self.run_with(SweepNow(NOW), self.append(b"new", ticket="new"), Probe(), Probe())
        self.assertIsNone(self.reports[-1].fault)
        self.assertEqual(1, self.outcomes()["new"][0].offset)
        self.assertEqual(1, self.room.log("t").first)
