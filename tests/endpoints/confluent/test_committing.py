"""/offsets of an instance."""

from typing import Any

from psubd.endpoints.confluent.faults import Incomplete
from psubd.errors import BadBody, BadParameter, InstanceMissing, OffsetOutOfRange, PartitionMissing, UnsupportedMediaType
from tests.endpoints.confluent.instance_house import ONE, V1, V2, InstanceCase
from tests.endpoints.house import Reply

AT = {"topic": "orders", "partition": 0}


class CommittingTests(InstanceCase):
    def setUp(self) -> None:
        super().setUp()
        self.stores(b"0", b"1", b"2")
        self.made("a", "orders", auto_commit_enable=False)

    def commit(self, body: Any = None, type: str | None = V2, **more: Any) -> Reply:
        return self.call("POST", f"{ONE}/offsets", body, type, **more)

    def place(self, partition: int = 0) -> Any:
        reply = self.call("GET", f"{ONE}/offsets", {"partitions": [{"topic": "orders", "partition": partition}]})
        self.assertEqual(reply.status, 200, reply.body)
        return reply.json["offsets"]

    def test_without_a_body(self) -> None:
        """What was wholly written; 200 with an empty list, also with async=true."""
        reply = self.commit(None, None)
        self.assertEqual((reply.status, reply.json, reply.header("content-type")), (200, [], V2))
        self.records(handed=0)
        self.commit(None, None, query="async=false")
        self.assertEqual(self.place(), [{**AT, "offset": 0, "metadata": ""}])
        self.records()
        self.assertEqual(self.commit(b"null", None, query="async=true").json, [])
        self.assertEqual(self.place(), [{**AT, "offset": 3, "metadata": ""}])

    def test_with_offsets(self) -> None:
        """One more than what the client names; with its metadata; no list commits nothing."""
        self.assertEqual(self.commit({"offsets": [{**AT, "offset": "1", "metadata": "m"}]}).json, [])
        self.assertEqual(self.place(), [{**AT, "offset": 2, "metadata": "m"}])
        self.records()
        self.assertEqual(self.commit({"offsets": []}).status, 200)
        self.assertEqual(self.place(), [{**AT, "offset": 2, "metadata": "m"}])
        self.assertEqual(self.commit({"offsets": [{**AT, "offset": -1}]}).status, 200)
        self.assertEqual(self.place(), [{**AT, "offset": 0, "metadata": ""}])

    def test_what_is_no_commit(self) -> None:
        self.fails(Incomplete, self.commit({}))
        self.fails(BadBody, self.commit({"offsets": [{**AT, "offset": -2}]}))
        self.fails(BadBody, self.commit({"offsets": [AT]}))
        self.fails(OffsetOutOfRange, self.commit({"offsets": [{**AT, "offset": 3}]}))
        self.fails(PartitionMissing, self.commit({"offsets": [{"topic": "orders", "partition": 9, "offset": 3}]}))
        self.fails(BadParameter, self.commit({"offsets": [{**AT, "offset": 1, "metadata": "x" * 257}]}))
        self.fails(UnsupportedMediaType, self.commit({"offsets": []}, "text/plain"))
        self.assertEqual(self.place(), [{**AT, "offset": 0, "metadata": ""}])

    def test_places(self) -> None:
        """In the body of a GET; without one there is no partition."""
        self.fails(PartitionMissing, self.call("GET", f"{ONE}/offsets", None, None))
        self.fails(PartitionMissing, self.call("GET", f"{ONE}/offsets", {"partitions": [{"topic": "orders", "partition": 3}]}))
        self.topic("more", "shop")
        self.bind("shop", "more")
        asked = {"partitions": [{"topic": "more", "partition": 0}, AT]}
        self.assertEqual(self.call("GET", f"{ONE}/offsets", asked).json, {"offsets": [{**AT, "offset": 0, "metadata": ""}]})

    def test_an_instance_that_is_not_there(self) -> None:
        self.call("DELETE", ONE, None, None)
        self.fails(InstanceMissing, self.commit(None, None))
        self.fails(InstanceMissing, self.call("GET", f"{ONE}/offsets", {"partitions": []}))


class FirstVersionTests(InstanceCase):
    def test_what_was_consumed_and_committed(self) -> None:
        """Offsets of the last message; by the instance's version where the request does not say."""
        self.stores(b"0", b"1", b"2")
        self.made("a", type=V1)
        self.call("GET", f"{ONE}/topics/orders", None, None, None, "timeout=0")
        for type, accept in ((None, None), (V1, None), (None, V1)):
            reply = self.call("POST", f"{ONE}/offsets", None, type, accept)
            self.assertEqual((reply.status, reply.header("content-type")), (200, V1))
            self.assertEqual(reply.json, [{**AT, "consumed": 2, "committed": 2}])
