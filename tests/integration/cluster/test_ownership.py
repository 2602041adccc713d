"""Which node serves what: takeovers, moves of slots, and commits that come late."""

import contextlib
import http.client
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterable, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import Any

from kafka.admin import KafkaAdminClient
from kafka.structs import OffsetAndMetadata, TopicPartition

from psubd.delivery.cursor import decode
from psubd.model import Commit
from psubd.storage.kafka.settings import KafkaSettings
from psubd.testing.claims import Claims
from psubd.testing.cluster import Node
from psubd.testing.daemon import Reply, Tenant, bind, make_topic, register
from psubd.testing.ring import RoundClient
from tests.integration.cluster.case import LONG, NodesCase, end_nodes, persist

PREFIX = KafkaSettings().group_prefix
MESSAGES = 2_000 if LONG else 200
SOME = 60
GROUPS, WIDE = (2_000 if LONG else 60), 100
PER_APPLICATION = 900
PAUSE_S = 0.1
LEASE_MS = 120_000
"""Of what a test reads: no lease lapses while it looks on, however slow the machine is."""

PATIENCE_S = 120
"""How long a test waits for what is to come. How long it took is printed."""

SPARE_S = 30
"""What a loaded machine may add to the two session timeouts within which a place is put right."""


def tearDownModule() -> None:
    end_nodes()


class OwnershipCase(NodesCase):
    def setUp(self) -> None:
        super().setUp()
        self.claims = Claims(self.nodes.ensemble.hosts, self.nodes.chroot, ())
        self.claims.__enter__()
        self.addCleanup(self.claims.__exit__)
        self.admin = KafkaAdminClient(bootstrap_servers=self.nodes.storage.partition("://")[2])
        self.addCleanup(self.admin.close)

    def owner(self, group: str) -> Node:
        self.until(lambda: self.claims.owner(group), "an owner", PATIENCE_S)
        return self.nodes.by_key(str(self.claims.owner(group)))

    def taken_from(self, group: str, node: Node) -> None:
        """Wait until another node has the group's slot."""
        self.until(lambda: self.claims.owner(group) not in (None, node.id), "a takeover", PATIENCE_S)

    def read(self, tenant: Tenant, count: int, ack: bool = True, timeout: int = 1_000) -> list[dict[str, Any]]:
        """So many messages of the application's group, each acked through another node than it was read through."""
        client, found = RoundClient(self.nodes, tenant.subscribe), []
        query = f"topic={self.orders}&timeout={timeout}&ack=explicit&ackTimeout={LEASE_MS}"
        until = time.monotonic() + PATIENCE_S
        while len(found) < count and time.monotonic() < until:
            target = f"/v1/sub?{query}&batchSize={min(20, count - len(found))}"
            reply = tried(lambda target=target: client.request("GET", target))
            self.assertIn(reply.status, (200, 204), reply)
            messages = reply.json["messages"] if reply.status == 200 else []
            if messages and ack:
                tokens = {"tokens": [message["ack"] for message in messages]}
                answer = tried(lambda tokens=tokens: client.send("POST", "/v1/ack", tokens))
                self.assertEqual(answer.status, 200, answer)
            found += messages
        return found

    def lag(self, tenant: Tenant, group: str) -> int:
        client = RoundClient(self.nodes, tenant.subscribe)
        reply = tried(lambda: client.request("GET", f"/v1/groups/{group}"))
        self.assertEqual(reply.status, 200, reply)
        return sum(item["lag"] for item in reply.json["items"])

    # --- what Kafka has

    def places(self, group: str) -> dict[TopicPartition, OffsetAndMetadata]:
        """What is committed in Kafka."""
        wanted = [TopicPartition(self.orders, partition) for partition in range(3)]
        found = self.admin.list_group_offsets({PREFIX + group: wanted})[PREFIX + group]
        return {place: made for place, made in found.items() if made.offset >= 0}

    def offsets(self, group: str) -> dict[int, int]:
        return {place.partition: made.offset for place, made in self.places(group).items()}

    def kept(self, group: str) -> int:
        """How many messages are done by what is committed in Kafka: of logs that begin at 0."""
        cursors = [decode(Commit(made.offset, made.metadata)) for made in self.places(group).values()]
        return sum(cursor.offset + sum(end - start for start, end in cursor.done) for cursor in cursors if cursor is not None)

    def wait_kept(self, group: str, count: int) -> float:
        return self.until(lambda: self.kept(group) == count, f"a commit that says that {count} messages are done", PATIENCE_S)

    def put_back(self, group: str, places: dict[TopicPartition, OffsetAndMetadata]) -> None:
        """A commit that comes late."""
        self.admin.alter_group_offsets(PREFIX + group, places)


class TakeoverTests(OwnershipCase):
    def test_takeover(self) -> None:
        """A poll that waits on another node gets what a killed node's group has to give: all that was not acked, also what was leased, and nothing
        that a commit says is done. How long after ``kill -9`` is printed: the session timeout and four seconds are due."""
        tenant = self.bound()
        values = [f"m{n}" for n in range(SOME)]
        self.published(tenant, values)
        done = {message["value"] for message in self.read(tenant, SOME // 2)}
        held = {message["value"] for message in self.read(tenant, 1, ack=False)}
        self.wait_kept(tenant.id, len(done))
        node = self.owner(tenant.id)
        node.kill()
        begun = time.monotonic()
        [first] = self.read(tenant, 1, timeout=30_000)
        print(f"\nthe first message came {time.monotonic() - begun:.1f} s after kill -9, session {self.nodes.session_ms} ms")
        rest = {message["value"] for message in self.read(tenant, SOME - len(done) - 1)} | {first["value"]}
        self.assertEqual(rest, set(values) - done)
        self.assertLessEqual(held, rest)

    def test_join(self) -> None:
        """A node that goes leaves its slots to the others; one that joins two others takes about a third, from both, and no slot moves between
        these."""
        joining = self.nodes["c"]
        before = self.claims.wait_all(3, PATIENCE_S)
        gone = joining.id
        home = {slot for slot, node in before.items() if node == gone}
        self.assertTrue(256 / 3 * 0.6 < len(home) < 256 / 3 * 1.4, len(home))
        self.assertEqual(joining.stop(), -15)
        two = self.moved_until(before, home, lambda now: len(now) == 256 and gone not in now.values(), "its slots with the others")
        self.assertEqual({two[slot] for slot in home}, {node.id for node in self.nodes.all if node is not joining})
        joining.start()
        three = self.moved_until(two, home, lambda now: len(now) == 256 and all(now[slot] == gone for slot in home), "its slots back")
        moved = {slot for slot in three if three[slot] != two[slot]}
        print(f"\n{len(moved)} of 256 slots moved to the node that joined")
        self.assertEqual(moved, home)
        self.assertEqual({two[slot] for slot in moved}, {node.id for node in self.nodes.all if node is not joining})

    def moved_until(self, former: dict[int, str], home: Iterable[int], holds: Callable[[dict[int, str]], bool], what: str) -> dict[int, str]:
        """Look at all claims until that holds, and see that none moves that is not of ``home``; the last look."""
        looks: list[dict[int, str]] = []
        others = former.keys() - set(home)

        def look() -> bool:
            looks.append(self.claims.all())
            self.assertEqual([slot for slot in others if looks[-1].get(slot) != former[slot]], [])
            return holds(looks[-1])

        self.until(look, what, PATIENCE_S)
        return looks[-1]


class LateCommitTests(OwnershipCase):
    """A former owner's commit that comes late, as one from a process that was stopped between its decision and its system call does: written here as
    it was before."""

    def test_put_right(self) -> None:
        """After a takeover the new owner notices a commit of the former one, and puts it right within two session timeouts."""
        tenant = self.bound()
        self.published(tenant, [f"m{n}" for n in range(SOME)])
        self.read(tenant, SOME // 3)
        self.wait_kept(tenant.id, SOME // 3)
        late = self.places(tenant.id)
        self.read(tenant, SOME // 3)
        self.wait_kept(tenant.id, SOME // 3 * 2)
        node = self.owner(tenant.id)
        node.kill()
        self.taken_from(tenant.id, node)
        taken = time.monotonic()
        self.read(tenant, 1, ack=False)  # the new owner has come to its places
        self.put_back(tenant.id, late)
        print(f"\na late commit came {time.monotonic() - taken:.1f} s after the takeover", end="")
        within = 2 * self.nodes.session_ms / 1000 + SPARE_S
        took = self.until(lambda: self.kept(tenant.id) == SOME // 3 * 2, "the commit put right", within)
        print(f", and was put right after {took:.1f} s")

    def test_reset_while_stopped(self) -> None:
        """A group that is reset while its owner is stopped begins where the reset says, though the former owner's commit comes late, and though the
        next owner dies before it has put that right: nothing is skipped."""
        tenant = self.bound()
        values = [f"m{n}" for n in range(SOME)]
        self.published(tenant, values)
        self.read(tenant, SOME)
        self.wait_kept(tenant.id, SOME)
        late = self.places(tenant.id)
        former = self.owner(tenant.id)
        others = [node for node in self.nodes.all if node is not former]
        former.freeze()
        try:
            self.taken_from(tenant.id, former)
            manager = others[0].manager()
            to = {"topic": self.orders, "to": "earliest"}
            reply = tried(lambda: manager.send("PUT", f"/api/v1/groups/{tenant.id}/offsets", to))
            self.assertEqual(reply.status, 200, reply)
            self.put_back(tenant.id, late)
            self.owner(tenant.id).kill()
        finally:
            former.thaw()
        again = [message["value"] for message in self.read(tenant, SOME)]
        self.assertEqual(set(again), set(values))
        self.until(lambda: self.lag(tenant, tenant.id) == 0, "the end", PATIENCE_S)

    def test_never_back_for_long(self) -> None:
        """While a group is read and its owner is stopped and goes on, no place that is committed in Kafka stays moved back for longer than two
        session timeouts."""
        tenant = self.bound()
        over = threading.Event()
        with Places(lambda: self.offsets(tenant.id)) as places, ThreadPoolExecutor(4) as threads:
            try:
                publishing = threads.submit(self.published, tenant, [f"m{n}" for n in range(MESSAGES)])
                reading = [threads.submit(self.read_on, tenant, over) for _ in range(3)]
                self.until(lambda: places.newest, "a first commit", PATIENCE_S)
                for _ in range(5 if LONG else 1):
                    self.stop_owner(tenant.id)
                publishing.result(2 * PATIENCE_S)
                self.until(lambda: self.lag(tenant, tenant.id) == 0, "all done", PATIENCE_S)
            finally:
                over.set()
            self.assertEqual(len(set().union(*(reader.result(PATIENCE_S) for reader in reading))), MESSAGES)
            self.until(lambda: sum(places.newest.values()) >= MESSAGES, "the last commit", PATIENCE_S)
        print(f"\n{places.samples} looks at the places; moved back for {places.longest_back:.1f} s at most")
        self.assertLess(places.longest_back, 2 * self.nodes.session_ms / 1000 + SPARE_S)

    def stop_owner(self, group: str) -> None:
        """Stop the group's owner until another node has the slot, and wait until it has it again."""
        node = self.owner(group)
        node.freeze()
        try:
            self.taken_from(group, node)
        finally:
            node.thaw()
        self.until(lambda: self.claims.owner(group) == node.id, "the slot back home", PATIENCE_S)

    def published(self, tenant: Tenant, values: Sequence[str]) -> None:
        """As everywhere, also where a node is stopped that has taken the request: it breaks it off then, and the message may be published twice."""
        client = RoundClient(self.nodes, tenant.publish)
        for value in values:
            reply = tried(lambda value=value: client.request("POST", f"/v1/pub/{self.orders}", value.encode(), {"key": value}))
            self.assertEqual(reply.status, 200, reply)

    def read_on(self, tenant: Tenant, over: threading.Event) -> set[str]:
        """Read and ack until it is over, through whichever node; what came. A node that was stopped breaks off what it had not finished."""
        client, found = RoundClient(self.nodes, tenant.subscribe), set()
        target = f"/v1/sub?topic={self.orders}&timeout=300&ack=explicit&ackTimeout=2000&batchSize=3"
        while not over.is_set():
            with contextlib.suppress(OSError, http.client.HTTPException):
                reply = persist(lambda: client.request("GET", target))
                messages = reply.json["messages"] if reply.status == 200 else []
                found |= {message["value"] for message in messages}
                if messages:
                    persist(lambda messages=messages: client.send("POST", "/v1/ack", {"tokens": [message["ack"] for message in messages]}))
        return found


class Places:
    """Looks at the committed places again and again, on a thread of its own.

    :ivar longest_back: seconds for which one was behind where it had been.
    """

    def __init__(self, look: Any) -> None:
        self._look, self._over = look, threading.Event()
        self._thread = threading.Thread(target=self._watch, daemon=True)
        self._most: dict[int, int] = {}
        self._since: dict[int, float] = {}
        self.newest: dict[int, int] = {}
        self.samples, self.longest_back = 0, 0.0

    def __enter__(self) -> "Places":
        self._thread.start()
        return self

    def __exit__(self, *raised: object) -> None:
        self._over.set()
        self._thread.join(30)

    def _watch(self) -> None:
        while not self._over.wait(PAUSE_S):
            self.newest = self._look()
            for partition, offset in self.newest.items():
                self._note(partition, offset, time.monotonic())
            self.samples += 1

    def _note(self, partition: int, offset: int, at: float) -> None:
        if offset >= self._most.get(partition, 0):
            self._most[partition] = offset
            since = self._since.pop(partition, at)
        else:
            since = self._since.setdefault(partition, at)
        self.longest_back = max(self.longest_back, at - since)


class ManyGroupsTests(OwnershipCase):
    def test_many_groups(self) -> None:
        """Many groups of a hundred partitions each: when a node is killed all its slots are served by the others, however many groups it had loaded;
        and each group goes on where it was asked for."""
        tenants = [self.wide(number) for number in range(-(-GROUPS // PER_APPLICATION))]
        groups = [(tenants[number // PER_APPLICATION], f"g{number}") for number in range(GROUPS)]
        begun = time.monotonic()
        self.assertEqual(Counter(self.asked(groups)), {204: GROUPS})
        print(f"\n{GROUPS} groups of {WIDE} partitions were loaded in {time.monotonic() - begun:.1f} s")
        node = self.nodes.all[0]
        lost = [group for group in groups if self.claims.owner(f"{group[0].id}.{group[1]}") == node.id]
        self.published(tenants[0], ["x"])
        node.kill()
        dead = time.monotonic()
        self.claims.wait_all(2, PATIENCE_S)
        print(f"all slots were served {time.monotonic() - dead:.1f} s after kill -9; {len(lost)} groups had been on that node")
        begun = time.monotonic()
        self.assertEqual(Counter(self.asked(lost, timeout=20_000)), {200: len(lost)})
        print(f"they went on in {time.monotonic() - begun:.1f} s")

    def wide(self, number: int) -> Tenant:
        """An application that reads one topic of many partitions; the first one owns it."""
        first = self.nodes.all[0].manager()
        tenant = register(first, f"{self.shop}-{number}")
        if number == 0:
            make_topic(first, self.orders, tenant.id, partitions=WIDE)
        bind(first, tenant.id, self.orders, pub=True, sub=True, start="earliest")
        self.known_everywhere(tenant, self.orders)
        return tenant

    def asked(self, groups: Sequence[tuple[Tenant, str]], timeout: int = 0) -> list[int]:
        """What a poll of each was answered with, several at a time."""

        def ask(group: tuple[Tenant, str]) -> int:
            client = RoundClient(self.nodes, group[0].subscribe)
            return tried(lambda: client.request("GET", f"/v1/sub?group={group[1]}&timeout={timeout}")).status

        with ThreadPoolExecutor(8) as threads:
            return list(threads.map(ask, groups))


def tried(ask: Callable[[], Reply]) -> Reply:
    """As `persist`, and asked again where the connection broke: a node that was stopped breaks off what it had not finished."""
    until = time.monotonic() + PATIENCE_S
    while True:
        try:
            reply: Reply = persist(ask, PATIENCE_S)
            return reply
        except (OSError, http.client.HTTPException):
            if time.monotonic() > until:
                raise
            time.sleep(0.05)
