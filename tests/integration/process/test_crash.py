"""What was acknowledged is kept: after kill -9, before the answer leaves, through SIGTERM."""

import http.client
import json
import os
import re
import signal
import socket
import threading
import time
from typing import Any

from psubd.testing.daemon import Client, Daemon, Tenant
from tests.integration.process.case import LONG, ProcessCase, drained, together, whole_log

ROUNDS = 20 if LONG else 4
PUBLISHERS = 4
POLLS, WHOLE, HALF = 30, 50, 20

Stored = dict[tuple[int, int], str]


class KillTests(ProcessCase):
    def publish_until_it_dies(self, daemon: Daemon, tenant: Tenant, round_number: int) -> Stored:
        """What was answered 200, over several connections, until the daemon is killed under load."""
        begun = threading.Barrier(PUBLISHERS + 1)

        def publisher(number: int) -> Stored:
            client, stored, n = daemon.data(**tenant.publish), {}, 0
            begun.wait()
            while True:
                value = f"{round_number}-{number}-{n}"
                try:
                    reply = client.request("POST", "/v1/pub/orders", value.encode())
                except (OSError, http.client.HTTPException):
                    return stored
                assert reply.status == 200, reply
                stored[reply.json["partition"], reply.json["offset"]] = value
                n += 1

        def killer(_: int) -> Stored:
            begun.wait()
            time.sleep(0.2 + 0.1 * (round_number % 7))
            os.kill(daemon.pid, signal.SIGKILL)
            return {}

        merged: Stored = {}
        for part in together(range(PUBLISHERS + 1), lambda number: publisher(number) if number < PUBLISHERS else killer(number)):
            self.assertEqual(set(merged) & set(part), set(), "two messages were answered the same place")
            merged.update(part)
        return merged

    def test_kill(self) -> None:
        """kill -9 during load, again and again: every message that was answered 200 is there after the restart, once, at its place."""
        daemon = self.daemon().start()
        tenant = self.bound(daemon, partitions=3)
        acknowledged: Stored = {}
        for number in range(ROUNDS):
            fresh = self.publish_until_it_dies(daemon, tenant, number)
            self.assertTrue(fresh, "nothing was published before the kill")
            self.assertEqual(set(fresh) & set(acknowledged), set(), "a place was given twice")
            acknowledged.update(fresh)
            daemon.wait()
            daemon.start()
            self.assert_kept(daemon.data(**tenant.subscribe), acknowledged)
        daemon.stop()

    def test_kill_while_reading(self) -> None:
        """A group whose node was killed goes on: what was not delivered comes, what was may come again, nothing is skipped."""
        daemon = self.daemon().start()
        tenant = self.bound(daemon, partitions=2)
        publish, seen = daemon.data(**tenant.publish), set()
        for n in range(500):
            publish.request("POST", "/v1/pub/orders", str(n).encode())
        read = daemon.data(**tenant.subscribe)
        for _ in range(20):
            seen |= {message["value"] for message in read.request("GET", "/v1/sub?batchSize=10").json["messages"]}
        daemon.signal(signal.SIGKILL)
        daemon.wait()
        daemon.start()
        rest = [message["value"] for messages in drained(daemon.data(**tenant.subscribe), "batchSize=100&timeout=500") for message in messages]
        self.assertEqual(len(rest), len(set(rest)))
        self.assertEqual(seen | set(rest), {str(n) for n in range(500)})

    def assert_kept(self, client: Client, acknowledged: Stored) -> None:
        log = [((message["partition"], message["offset"]), message["value"]) for message in whole_log(client, "orders")]
        kept = dict(log)
        self.assertEqual(len(kept), len(log), "an offset came twice")
        self.assertEqual(len(set(kept.values())), len(kept), "a message is there twice")
        missing = {place: value for place, value in acknowledged.items() if kept.get(place) != value}
        self.assertEqual(missing, {})


class SyncTests(ProcessCase):
    COUNT = 20

    def trace(self) -> list[str]:
        """What the daemon asked of the system while it answered 20 publishes, one after another: the completed calls, in order."""
        path = os.path.join(self.folder, "trace")
        calls = "trace=fsync,fdatasync,sync_file_range,msync,read,recvfrom,recvmsg,write,writev,sendto,sendmsg"
        wrapper = ("strace", "-f", "-qq", "-s", "256", "-o", path, "-e", calls)
        with self.daemon(wrapper=wrapper) as daemon:
            tenant = self.bound(daemon)
            client = daemon.data(**tenant.publish)
            for n in range(self.COUNT):
                self.assertEqual(client.request("POST", "/v1/pub/orders", f"message-{n}-".encode(), {"acks": "all"}).status, 200)
            daemon.stop()
        with open(path, encoding="utf-8", errors="replace") as file:
            return completed(file.read().splitlines())

    def test_synced_before_answered(self) -> None:
        """The file is synced after the request came and before its `acks: all` answer is written to the socket: each time."""
        calls = self.trace()
        for n in range(self.COUNT):
            came = next(index for index, call in enumerate(calls) if re.match(r"(read|recv\w+)\(", call) and f"message-{n}-" in call)
            answered = next(
                index for index, call in enumerate(calls) if index > came and re.match(r"(write|send)\w*\(", call) and "HTTP/1.1 200" in call
            )
            synced = [call for call in calls[came:answered] if re.match(r"f(data)?sync\(", call) and call.endswith("= 0")]
            self.assertTrue(synced, f"message {n} was answered without a sync:\n" + "\n".join(calls[came : answered + 1]))


def completed(lines: list[str]) -> list[str]:
    """strace's lines with the calls that it shows in two parts put together, where they completed."""
    whole, begun = [], {}
    for line in lines:
        thread, _, call = line.partition(" ")
        call = call.strip()
        if call.endswith("<unfinished ...>"):
            begun[thread] = call.removesuffix("<unfinished ...>")
        elif call.startswith("<... "):
            whole.append(begun.pop(thread, "") + call.partition("resumed>")[2])
        else:
            whole.append(call)
    return [re.sub(r"\s+= ", " = ", call) for call in whole]


class TerminateTests(ProcessCase):
    def test_hundred_requests(self) -> None:
        """SIGTERM in the middle of 100 requests (publishes sent whole, publishes sent half, long polls): each gets its answer, and what was
        acknowledged is there after the restart; what was delivered is not delivered again."""
        daemon = self.daemon().start()
        tenant = self.bound(daemon, partitions=3)
        whole = [Pending(daemon, tenant.publish, f"whole-{n}") for n in range(WHOLE)]
        half = [Pending(daemon, tenant.publish, f"half-{n}") for n in range(HALF)]
        polls = [Pending(daemon, tenant.subscribe, None, f"?topic=orders&group=g{n}&timeout=60000") for n in range(POLLS)]
        for poll in polls:
            poll.send_head()
        for pending in half:
            pending.send_head()
        for pending in whole:
            pending.send_head()
            pending.send_body()
        daemon.signal(signal.SIGTERM)
        time.sleep(0.3)  # it has stopped listening by then; the others' bodies come after that
        for pending in half:
            pending.send_body()
        answers = [pending.answer() for pending in (*whole, *half)]
        self.assertEqual({status for status, _ in answers}, {200})
        delivered: dict[int, list[str]] = {}
        for number, poll in enumerate(polls):
            status, body = poll.answer()
            self.assertIn(status, (200, 204))
            delivered[number] = [message["value"] for message in json.loads(body)["messages"]] if status == 200 else []
        daemon.wait()
        daemon.start()
        client = daemon.data(**tenant.subscribe)
        everything = sorted([f"whole-{n}" for n in range(WHOLE)] + [f"half-{n}" for n in range(HALF)])
        self.assertEqual(sorted(message["value"] for message in whole_log(client, "orders")), everything)
        for number, had in delivered.items():
            rest = [message["value"] for messages in drained(client, f"group=g{number}&batchSize=1000&timeout=0", 1) for message in messages]
            self.assertEqual(sorted(had + rest), everything)
        daemon.stop()

    def test_ends_by_the_signal(self) -> None:
        """After SIGTERM and SIGINT it ends, by that signal, and takes ports.json away."""
        for number in (signal.SIGTERM, signal.SIGINT):
            daemon = self.daemon().start()
            daemon.signal(number)
            self.assertEqual(daemon.wait(), -number)
            self.assertFalse(os.path.exists(daemon.file("ports.json")))
            self.assertNotIn("Traceback", daemon.output())

    def test_signal_while_it_starts(self) -> None:
        """SIGTERM at any moment of the start ends it without a complaint, and it starts again."""
        for delay in (0.3, 0.5, 0.7, 0.9):
            daemon = self.daemon()
            daemon.spawn()
            time.sleep(delay)
            daemon.process.send_signal(signal.SIGTERM)
            daemon.wait()
            self.assertNotIn("Traceback", daemon.output())
        self.daemon().start().stop()


class Pending:
    """One request that is sent part by part over a connection of its own."""

    def __init__(self, daemon: Daemon, keys: dict[str, str], value: str | None, query: str = "") -> None:
        self.body = None if value is None else value.encode()
        start = f"GET /v1/sub{query}" if self.body is None else "POST /v1/pub/orders"
        fields = {"host": "localhost", **keys, **({"content-length": str(len(self.body))} if self.body is not None else {})}
        self.head = "\r\n".join([f"{start} HTTP/1.1", *(f"{name}: {value}" for name, value in fields.items()), "", ""]).encode()
        self.socket = socket.create_connection(("127.0.0.1", daemon.ports.data), timeout=60)

    def send_head(self) -> None:
        self.socket.sendall(self.head)

    def send_body(self) -> None:
        assert self.body is not None
        self.socket.sendall(self.body)

    def answer(self) -> tuple[int, bytes]:
        """Status and body; the connection is closed after it."""
        answer: Any = http.client.HTTPResponse(self.socket)
        answer.begin()
        body = answer.read()
        self.socket.close()
        return answer.status, body
