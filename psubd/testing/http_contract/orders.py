"""``ordered: true``: strict per key, and per partition where there is no key (contract, section 3)."""

import threading
from typing import Any

from psubd.testing.daemon import together
from psubd.testing.http_contract.lease_steps import HOUR, LeaseSteps, values_of
from psubd.testing.http_contract.steps import MEBIBYTE, Stand, broken, written

READERS, KEYS, EACH = 4, 3, 10


class OrdersContract(LeaseSteps):
    """Order per key, in both modes."""

    def put_keyed(self, stand: Stand, *values: str, partition: int = 0) -> None:
        """Messages whose key is their first letter; ``n`` has none."""
        self.put_batch(stand, [{"key": None if value[0] == "n" else value[0], "value": value, "partition": partition} for value in values])

    def test_one_of_a_key_out_at_a_time(self) -> None:
        """Explicit: also inside one answer; what is done makes room for the next of its key, what is held back holds its key back, others flow."""
        stand = self.stand(2, ordered=True)
        self.put_keyed(stand, "a1", "a2", "b1", "b2", "n1", "a3", "n2")
        out = {message["value"]: message for message in self.lease(stand, 3)}
        self.assertEqual(set(out), {"a1", "b1", "n1"})
        self.assert_nothing(stand)
        self.put_keyed(stand, "n3", "n4", partition=1)
        [third] = self.lease(stand, 1)
        self.assertEqual(third["value"], "n3")
        self.nack(stand, out["a1"], delay=HOUR)
        self.ack(stand, out["b1"], out["n1"])
        more = {message["value"]: message for message in self.lease(stand, 2)}
        self.assertEqual(set(more), {"b2", "n2"})
        self.assert_nothing(stand, ack="explicit")
        self.ack(stand, *more.values(), out["a1"], third)
        last = {message["value"]: message for message in self.lease(stand, 2)}
        self.assertEqual(set(last), {"a2", "n4"})
        self.ack(stand, *last.values())
        self.ack(stand, *self.lease(stand, 1))
        self.all_done(stand)

    def test_what_comes_back_comes_first(self) -> None:
        """A message that is nacked, at once or after a while, comes before the next of its key."""
        stand = self.stand(ordered=True)
        self.put_keyed(stand, "a1", "a2")
        for attempt, delay in ((1, 0), (2, 150)):
            [message] = self.lease(stand, 1)
            self.assertEqual((message["value"], message["attempt"]), ("a1", attempt))
            self.nack(stand, message, delay=delay)
        [message] = self.lease(stand, 1)
        self.assertEqual((message["value"], message["attempt"]), ("a1", 3))
        self.ack(stand, message)
        self.assertEqual(values_of(self.lease(stand, 1)), ["a2"])

    def test_many_subscribers(self) -> None:
        """Several clients at once, nacks among the acks: each key's messages come one after another, in order, to whomever."""
        stand = self.stand(2, ordered=True)
        self.put_batch(stand, [{"key": f"k{key}", "value": f"k{key}-{number:02}"} for number in range(EACH) for key in range(KEYS)])
        told: list[tuple[str, str]] = []
        lock, total = threading.Lock(), KEYS * EACH

        def note(what: str, value: str) -> None:
            with lock:
                told.append((what, value))

        def done() -> int:
            with lock:
                return sum(what == "done" for what, _ in told)

        def work(_: int) -> None:
            client = self.data(stand.tenant.subscribe)
            while done() < total:
                reply = client.request("GET", f"/v1/sub?ack=explicit&ackTimeout={HOUR}&batchSize=2&timeout=200")
                for message in reply.json["messages"] if reply.status == 200 else ():
                    again = message["attempt"] == 1 and message["value"].endswith("3")
                    note("out", message["value"])
                    note("back" if again else "done", message["value"])
                    route = "nack" if again else "ack"
                    assert client.send("POST", f"/v1/{route}", {"tokens": [message["ack"]]}).status == 200, message

        together(range(READERS), work)
        for key in range(KEYS):
            events = [event for event in told if event[1].startswith(f"k{key}")]
            expected: list[tuple[str, str]] = []
            for value in (f"k{key}-{number:02}" for number in range(EACH)):
                expected += [("out", value), ("back", value)] if value.endswith("3") else []
                expected += [("out", value), ("done", value)]
            self.assertEqual(events, expected)
        self.all_done(stand)

    def test_auto(self) -> None:
        """One answer may hold several of a key, in order."""
        stand = self.stand(ordered=True)
        values = [f"a{number:02}" for number in range(50)]
        self.put_keyed(stand, *values)
        answers: list[list[dict[str, Any]]] = []
        while sum(map(len, answers)) < len(values):
            answers.append(self.read(stand, "batchSize=20&timeout=10000"))
            self.assertTrue(answers[-1], len(answers))
        self.assertEqual([message["value"] for answer in answers for message in answer], values)
        self.assertLess(len(answers), len(values))

    def test_auto_while_an_answer_is_written(self) -> None:
        """While an answer with a key's messages is on its way, the key waits and others flow; broken off, the key goes on where it was."""
        stand = self.stand(ordered=True)
        self.place(stand, b"\0" * MEBIBYTE, {"key": "a"})  # 6 MiB of JSON: more than the system takes for a client that does not read
        line = self.connect(receive_buffer=4096)
        line.sendall(written("GET", "/v1/sub?timeout=20000", list(stand.tenant.subscribe.items()), None))
        self.assertTrue(line.recv(16).startswith(b"HTTP/1.1 200"))
        self.put_keyed(stand, "a2", "b1")
        self.assertEqual(self.values(stand), ["b1"])
        self.assert_nothing(stand)
        broken(line)
        got = self.drain(stand, 2)
        self.assertEqual([(message["value"][-2:], message["attempt"]) for message in got], [("\0\0", 1), ("a2", 1)])
