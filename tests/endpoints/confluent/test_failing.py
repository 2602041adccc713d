"""Instances of the real subscriber on a storage and a registry that fail: each number that a client is told then."""

from typing import Any

from psubd.endpoints.confluent.consumers import instance_routes
from psubd.endpoints.confluent.refusals import number_of
from psubd.endpoints.credentials import Callers
from psubd.errors import InUse, OwnershipInDoubt, PsubdError, RegistryUnavailable, StorageTimeout, StorageUnavailable
from psubd.services.subscriber import Subscriber
from psubd.testing.faulty_storage import FaultyStorage
from tests.endpoints.confluent.instance_house import ONE, InstanceCase
from tests.endpoints.house import Reply


class FailingTests(InstanceCase):
    def setUp(self) -> None:
        super().setUp()
        self.faulty = FaultyStorage(self.storage)
        subscriber = Subscriber(self.faulty, self.registry, self.gate, self.registry, self.clock, 500)
        self.wait(subscriber.start())
        admit = Callers(self.gate).subscriber
        self.routes = instance_routes(admit, subscriber, lambda exchange: "http://proxy", timeout_ms=1_000, max_bytes=64 << 20)
        self.stores(b"0", b"1")

    def reply(self, deferred: Any, handed: int | None = None) -> Reply:
        """An error with its number, after as long as it takes."""
        refusals: list[PsubdError] = []

        def kept(failure: Any) -> Any:
            if isinstance(failure.value, PsubdError):
                refusals.append(failure.value)
            return failure

        deferred.addErrback(kept)
        self.clock.advance(1)
        reply = super().reply(deferred, handed)
        self.number = number_of(refusals[0]) if refusals else None
        return reply

    def told(self, reply: Reply, status: int, number: int) -> Reply:
        self.assertEqual((reply.status, self.number), (status, number), reply.body)
        return reply

    def place(self) -> Any:
        return self.call("GET", f"{ONE}/offsets", {"partitions": [{"topic": "orders", "partition": 0}]}).json["offsets"][0]["offset"]

    def test_a_commit_that_is_not_kept(self) -> None:
        """Is told, with why, and may be repeated."""
        self.made("a", "orders", auto_commit_enable=False)
        self.records()
        for error, status, number in ((StorageUnavailable("away", 7), 503, 50003), (StorageTimeout("late"), 504, 50002), (InUse("x"), 503, 50003)):
            self.faulty.failing["commit"] = error
            reply = self.told(self.call("POST", f"{ONE}/offsets", None, None), status, number)
            self.assertEqual(reply.header("retry-after") is None, status != 503)
            del self.faulty.failing["commit"]
            self.clock.advance(60_000)
            self.stores(b"more")
            self.records()
        self.assertEqual(self.call("POST", f"{ONE}/offsets", None, None).status, 200)
        self.assertEqual(self.place(), 5)

    def test_a_read_that_fails(self) -> None:
        """Is told, and gives the same with the next."""
        self.made("a", "orders")
        for error, status, number in ((StorageUnavailable("away"), 503, 50003), (StorageTimeout("late"), 504, 50002)):
            self.faulty.failing["read"] = error
            self.told(self.call("GET", f"{ONE}/records", None, None, None, "timeout=0"), status, number)
        del self.faulty.failing["read"]
        self.assertEqual([record["offset"] for record in self.records()], [0, 1])

    def test_a_registry_that_cannot_be_written(self) -> None:
        """No instance is made, none leaves, none changes: 50003."""
        self.made("a", "orders")
        self.registry.refuse = RegistryUnavailable("cut off", 2)
        self.told(self.call("POST", "/consumers/g", {"name": "b"}), 503, 50003)
        self.told(self.call("DELETE", ONE, None, None), 503, 50003)
        self.told(self.call("POST", f"{ONE}/subscription", {"topic_pattern": "x"}), 503, 50003)
        self.registry.refuse = None
        self.assertEqual(self.call("GET", f"{ONE}/subscription", None, None).json, {"topics": ["orders"]})

    def test_a_seek_that_cannot_look(self) -> None:
        self.made("a", "orders")
        self.faulty.failing["bounds"] = StorageTimeout("late")
        self.told(self.call("POST", f"{ONE}/positions/beginning", {"partitions": [{"topic": "orders", "partition": 0}]}), 504, 50002)

    def test_too_many(self) -> None:
        """42901 for the instance after the thousandth of an application."""
        for number in range(1000):
            reply = self.call("POST", f"/consumers/g{number // 100}", {"name": f"c{number}"})
            self.assertEqual(reply.status, 200, reply.body)
        reply = self.told(self.call("POST", "/consumers/other", {}), 429, 42901)
        self.assertIsNotNone(reply.header("retry-after"))
        self.assertEqual(self.call("DELETE", "/consumers/g0/instances/c0", None, None).status, 204)
        self.assertEqual(self.call("POST", "/consumers/other", {}).status, 200)

    def test_doubt(self) -> None:
        """Whatever makes it unknown who serves the group is 50003."""
        self.assertEqual((OwnershipInDoubt.status, number_of(OwnershipInDoubt("x"))), (503, 50003))
