"""The daemon ends, well or badly, under load on Kafka: what was accepted is answered, what was acknowledged is there, what was done is not done
again."""

import json
import signal
import time

from psubd.testing.daemon import Client, Daemon, Tenant
from tests.integration.kafka_process.case import KafkaProcessCase, Publishing, persist
from tests.integration.process.case import LONG, drained, together
from tests.integration.process.test_crash import HALF, POLLS, WHOLE, Pending

KILLS = 10 if LONG else 2


class EndingTests(KafkaProcessCase):
    def test_sigterm_under_load(self) -> None:
        """SIGTERM while four publishers are at work and a hundred requests are under way (publishes sent whole, publishes sent half, long polls):
        each of these gets its answer; what was acknowledged, to whomever, is there after the restart; what a group was given does not come again."""
        daemon = self.kafka_daemon().start()
        tenant = self.bound(daemon, self.shop, self.orders, 3)
        publishing = Publishing(daemon, tenant, self.orders, 4, size=64)
        self.until(lambda: len(publishing.stored) > 200, "two hundred")
        whole = [self.pending(daemon, tenant.publish, f"whole-{n}") for n in range(WHOLE)]
        half = [self.pending(daemon, tenant.publish, f"half-{n}") for n in range(HALF)]
        polls = [Pending(daemon, tenant.subscribe, None, f"?topic={self.orders}&group=g{n % 10}&timeout=60000&batchSize=20") for n in range(POLLS)]
        for pending in (*polls, *half, *whole):
            pending.send_head()
        for pending in whole:
            pending.send_body()
        daemon.signal(signal.SIGTERM)
        time.sleep(0.3)  # it has stopped listening by then; the others' bodies come after that
        for pending in half:
            pending.send_body()
        answers = [pending.answer() for pending in (*whole, *half)]
        self.assertEqual({status for status, _ in answers}, {200})
        given: dict[int, list[str]] = {number: [] for number in range(10)}
        for number, poll in enumerate(polls):
            status, body = poll.answer()
            self.assertIn(status, (200, 204))
            given[number % 10] += [message["value"] for message in json.loads(body)["messages"]] if status == 200 else []
        self.assertEqual(daemon.wait(), -signal.SIGTERM)
        publishing.stop()
        daemon.start()
        log = self.log(daemon, tenant)
        asked = {message["value"] for message in log if message["key"] is None}
        self.assertEqual(asked, {f"whole-{n}" for n in range(WHOLE)} | {f"half-{n}" for n in range(HALF)})
        left = self.assert_kept(publishing, [message for message in log if message["key"] is not None])
        rest = together(range(10), lambda number: self.rest(daemon, tenant, f"g{number}"))
        everything = sorted(message["value"] for message in log)
        for number, had in given.items():
            self.assertEqual(sorted(had + rest[number]), everything)
        daemon.stop()
        self.assertNotIn("Traceback", daemon.output())
        print(f"\nSIGTERM: {publishing}; {publishing.broken} connections ended between requests, of these {left} messages are there")

    def rest(self, daemon: Daemon, tenant: Tenant, group: str) -> list[str]:
        """What the group has not had."""
        read = daemon.data(**tenant.subscribe)
        return [message["value"] for messages in drained(read, f"group={group}&batchSize=2000&timeout=1000", 1) for message in messages]

    def pending(self, daemon: Daemon, keys: dict[str, str], value: str) -> Pending:
        made = Pending(daemon, keys, value)
        made.head = made.head.replace(b"/v1/pub/orders", f"/v1/pub/{self.orders}".encode())
        return made

    def test_kill_while_publishing(self) -> None:
        """kill -9 under load, again and again: what was answered 200 is there after the restart, once, at its place."""
        daemon = self.kafka_daemon().start()
        tenant = self.bound(daemon, self.shop, self.orders, 3)
        rounds: list[Publishing] = []
        for number in range(KILLS):
            publishing = Publishing(daemon, tenant, f"{self.orders}", 8, size=64 + number)  # each round's values differ by their length
            self.until(lambda now=publishing: len(now.stored) > 300, "three hundred")  # type: ignore[misc]
            daemon.signal(signal.SIGKILL)
            daemon.wait()
            rounds.append(publishing.stop())
            daemon.start()
            log = self.log(daemon, tenant)
            for size, each in enumerate(rounds):
                self.assert_kept(each, [message for message in log if len(message["value"]) == 64 + size])
        daemon.stop()

    def test_kill_while_reading(self) -> None:
        """kill -9 of a daemon whose group has read: what was committed does not come again; what was not read comes; what was read after the last
        commit may come again, and nothing is skipped."""
        daemon = self.kafka_daemon().start()
        tenant = self.bound(daemon, self.shop, self.orders, 2)
        records = [{"value": f"{n}"} for n in range(1_000)]
        self.assertEqual(daemon.data(**tenant.publish).send("POST", f"/v1/pub/{self.orders}/batch", {"records": records}).status, 200)
        read = daemon.data(**tenant.subscribe)
        committed = self.read(read, 300)
        self.until(lambda: self.committed() == 300, "the commit of what was read")
        later = self.read(read, 100)
        daemon.signal(signal.SIGKILL)
        daemon.wait()
        daemon.start()
        rest = [message["value"] for messages in drained(daemon.data(**tenant.subscribe), "batchSize=100&timeout=1000") for message in messages]
        self.assertEqual(len(rest), len(set(rest)))
        self.assertEqual(set(rest) & committed, set(), "it was done, and committed")
        self.assertEqual(committed | later | set(rest), {f"{n}" for n in range(1_000)})
        daemon.stop()
        print(f"\nkill while reading: of 100 read after the last known commit {len(set(rest) & later)} came again")

    def read(self, client: Client, count: int) -> set[str]:
        found: set[str] = set()
        while len(found) < count:
            found |= {message["value"] for message in persist(client, f"/v1/sub?batchSize={min(50, count - len(found))}").json["messages"]}
        return found

    def committed(self) -> int:
        """All offsets together that the application's group has committed in Kafka."""
        lines = self.cluster.groups("--describe", "--group", f"psubd.{self.shop}").splitlines()
        return sum(int(line.split()[3]) for line in lines if line.startswith("psubd."))
