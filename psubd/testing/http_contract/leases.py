"""Explicit acks: leases, and what becomes of them (contract, section 3)."""

import json
import re
from typing import Any

from psubd.testing.http_contract.answers import LINES, OCTETS
from psubd.testing.http_contract.lease_steps import HOUR, ROUTES, SOON, LeaseSteps, tokens_of, values_of

TOKEN = re.compile(r"[A-Za-z0-9_-]{1,200}")

WRONG_CALLS: list[tuple[str, bytes]] = [
    ("ack", b""),
    ("ack", b"[]"),
    ("ack", b"{}"),
    ("ack", b'{"tokens": []}'),
    ("ack", b'{"tokens": "x"}'),
    ("ack", b'{"tokens": [1]}'),
    ("ack", b'{"tokens": ["x"], "delay": 0}'),
    ("ack", b'{"tokens": ["x"], "tokens": ["x"]}'),
    ("ack", b'{"tokens": [' + b'"x",' * 10_000 + b'"x"]}'),
    ("nack", b'{"tokens": ["x"], "delay": -1}'),
    ("nack", b'{"tokens": ["x"], "delay": 43200001}'),
    ("nack", b'{"tokens": ["x"], "dead": 1}'),
    ("nack", b'{"tokens": ["x"], "dead": true, "delay": 1}'),
    ("extend", b'{"tokens": ["x"]}'),
    ("extend", b'{"tokens": ["x"], "ackTimeout": 999}'),
    ("extend", b'{"tokens": ["x"], "ackTimeout": 43200001}'),
]
"""Calls that are malformed."""


class LeasesContract(LeaseSteps):
    """Leasing, acking, nacking, extending, lapsing."""

    def test_leased_and_acked(self) -> None:
        """A message that is leased is nobody else's and is not done; acked it is, in any order, and once more; the place follows."""
        stand = self.stand()
        self.put(stand, b"a", b"b", b"c")
        first, second, third = messages = self.lease(stand, 3)
        self.assertEqual([(message["value"], message["attempt"]) for message in messages], [("a", 1), ("b", 1), ("c", 1)])
        for message in messages:
            self.assertTrue(isinstance(message["epoch"], int), message)
            self.assertTrue(TOKEN.fullmatch(message["ack"]), message["ack"])
        self.assertEqual(len(set(tokens_of(messages))), 3)
        self.assert_nothing(stand)
        self.assert_nothing(stand, ack="explicit")
        self.assertEqual(self.out(stand), 3)
        self.ack(stand, third, second)
        self.assertEqual((self.out(stand), self.items(stand)[0]["committed"]), (1, first["offset"]))
        self.ack(stand, first)
        self.all_done(stand)
        self.ack(stand, first, second, third, first)
        self.assert_nothing(stand)

    def test_the_binding_chooses(self) -> None:
        """Without ack in the poll it is the binding's, with its ack_timeout_ms; what the poll says goes before."""
        stand = self.stand(ack="explicit", ack_timeout_ms=SOON)
        self.put(stand, b"a", b"b")
        [message] = self.read(stand, "timeout=5000")
        self.assertEqual((message["value"], message["attempt"], "ack" in message), ("a", 1, True))
        [message] = self.read(stand, "timeout=5000&ack=auto")
        self.assertEqual((message["value"], {"ack", "epoch"} & message.keys()), ("b", set()))
        [again] = self.read(stand, f"timeout=10000&ackTimeout={HOUR}")
        self.assertEqual((again["value"], again["attempt"]), ("a", 2))
        self.ack(stand, again)
        self.all_done(stand)

    def test_nack(self) -> None:
        """Back to the group: before what is newer, in order, as the next attempt; the messages beside it keep their leases."""
        stand = self.stand()
        self.put(stand, b"a", b"b", b"c")
        a, b, c = self.lease(stand, 3)
        self.put(stand, b"d")
        self.nack(stand, b, a)
        again = self.lease(stand, 3)
        self.assertEqual([(message["value"], message["attempt"]) for message in again], [("a", 2), ("b", 2), ("d", 1)])
        self.assert_lost(stand, "nack", [a, c, b], [a, b])
        self.ack(stand, *again)
        self.assertEqual([(message["value"], message["attempt"]) for message in self.lease(stand, 1)], [("c", 2)])

    def test_nack_with_delay(self) -> None:
        """Held back for so long, while others go on; said twice it is once; an ack of it still counts until it is leased again."""
        stand = self.stand()
        self.put(stand, b"a", b"b")
        a, b = self.lease(stand, 2)
        self.nack(stand, a, delay=HOUR)
        self.nack(stand, b, delay=200)
        self.nack(stand, a, a, delay=HOUR)
        self.put(stand, b"c")
        flowing = self.lease(stand, 2)
        self.assertEqual({(message["value"], message["attempt"]) for message in flowing}, {("b", 2), ("c", 1)})
        self.assert_lost(stand, "extend", [a], ackTimeout=HOUR)
        self.assert_nothing(stand)
        self.ack(stand, a, *flowing)
        self.all_done(stand)

    def test_backoff(self) -> None:
        """The binding's backoff holds a nacked message back where the delay is shorter."""
        stand = self.stand(backoff={"min": HOUR, "max": HOUR})
        self.put(stand, b"a")
        [a] = self.lease(stand, 1)
        self.nack(stand, a)
        self.assert_nothing(stand)
        self.bind(stand.id, stand.topic, pub=True, sub=True, backoff={"min": 50, "max": 100})
        self.put(stand, b"b")
        [b] = self.lease(stand, 1)
        self.nack(stand, b, delay=10)
        self.assertEqual([(message["value"], message["attempt"]) for message in self.lease(stand, 1)], [("b", 2)])

    def test_lapse(self) -> None:
        """A lease that lapses gives its message to whoever waits, as the next attempt; the former token is lost then, the new one counts."""
        stand = self.stand()
        self.put(stand, b"a")
        [former] = self.lease(stand, 1, ackTimeout=SOON)
        [message] = self.lease(stand, 1)
        self.assertEqual((message["value"], message["attempt"]), ("a", 2))
        for route, more in ROUTES:
            self.assert_lost(stand, route, [former], **more)
        self.ack(stand, message)
        self.all_done(stand)
        self.ack(stand, former)

    def test_lapsed_and_not_leased_again(self) -> None:
        """It still acks its message, but neither nacks nor extends it."""
        stand = self.stand()
        self.put(stand, b"a")
        [lapsed] = self.lease(stand, 1, ackTimeout=SOON)
        self.until(lambda: self.out(stand) == 0, "it lapses")
        self.assert_lost(stand, "nack", [lapsed])
        self.assert_lost(stand, "extend", [lapsed], ackTimeout=HOUR)
        self.ack(stand, lapsed)
        self.assert_nothing(stand)
        self.all_done(stand)

    def test_extend(self) -> None:
        """A lease that is extended lasts so long from then on, be it longer or shorter than before."""
        stand = self.stand()
        self.put(stand, b"longer", b"shorter")
        [longer] = self.lease(stand, 1, ackTimeout=SOON, batchSize=1)
        [shorter] = self.lease(stand, 1, batchSize=1)
        self.taken(stand, "extend", [longer], ackTimeout=HOUR)
        self.taken(stand, "extend", [shorter], ackTimeout=SOON)
        self.assertEqual([(message["value"], message["attempt"]) for message in self.lease(stand, 1)], [("shorter", 2)])
        self.assertEqual(self.out(stand), 2)
        self.ack(stand, longer)

    def test_acks_with_the_next_read(self) -> None:
        """POST /v1/sub acks first, then reads: always 200, with what is lost beside what took effect. A read that is refused leaves them acked."""
        stand = self.stand(max_in_flight=2)
        self.put(stand, b"a", b"b", b"c")
        a, b = self.lease(stand, 2)
        asks = {"ack": "explicit", "ackTimeout": HOUR, "batchSize": 10}
        reply = stand.sub.send("POST", "/v1/sub", {"tokens": [a["ack"], "forged"], "timeout": 10_000, **asks})
        self.assertEqual((reply.status, reply.json["acked"], reply.json["lost"]), (200, 1, ["forged"]))
        [c] = reply.json["messages"]
        self.assertEqual((c["value"], c["attempt"]), ("c", 1))
        reply = stand.sub.send("POST", "/v1/sub", {"tokens": [b["ack"], a["ack"]], "timeout": 0, **asks})
        self.assertEqual((reply.status, reply.json), (200, {"messages": [], "acked": 2, "lost": []}))
        refused = stand.sub.send("POST", "/v1/sub", {"tokens": [c["ack"]], "timeout": 0, "topic": self.name()})
        self.assert_refused(refused, 403, "topic_not_bound")
        self.all_done(stand)

    def test_max_in_flight(self) -> None:
        """So many messages of a partition are out at most; an ack makes room for the next."""
        stand = self.stand(max_in_flight=2)
        self.put(stand, b"a", b"b", b"c", b"d")
        a, b = self.lease(stand, 2)
        self.assert_nothing(stand, ack="explicit")
        self.assert_nothing(stand)
        self.assertEqual(self.values(stand, "group=g&batchSize=2&timeout=5000&ack=auto")[:1], ["a"])
        self.ack(stand, b)
        [c] = self.lease(stand, 1)
        self.assert_nothing(stand)
        self.assertEqual(c["value"], "c")
        self.ack(stand, a, c)
        self.assertEqual(values_of(self.lease(stand, 1)), ["d"])

    def test_ten_thousand_in_a_call(self) -> None:
        """As many leases as there may be, every second one acked in a call, then the others: nothing comes again, all is done."""
        stand = self.stand()
        self.put_batch(stand, [{"value": str(number)} for number in range(10_000)])
        messages = self.lease(stand, 10_000, batchSize=10_000)
        self.assertEqual(values_of(messages), [str(number) for number in range(10_000)])
        self.ack(stand, *messages[1::2])
        self.assertEqual((self.out(stand), self.items(stand)[0]["committed"]), (5000, messages[0]["offset"]))
        self.ack(stand, *messages)
        self.all_done(stand)
        self.assert_nothing(stand)

    def test_both_modes_in_one_answer(self) -> None:
        """Without ack each topic's messages go as its binding says, in one answer too: the ones leased, the others done."""
        explicit = self.stand(ack="explicit")
        auto = self.another(explicit)
        self.put(explicit, b"leased")
        self.put(auto, b"auto")
        found: dict[str, Any] = {}
        while len(found) < 2:
            found.update({message["value"]: message for message in self.read(explicit, "batchSize=10&timeout=10000")})
        self.assertEqual(({"ack", "epoch"} <= found["leased"].keys(), {"ack", "epoch"} & found["auto"].keys()), (True, set()))
        self.all_done(auto)
        self.assertEqual((self.out(explicit), self.items(explicit)[0]["lag"]), (1, 1))
        self.ack(explicit, found["leased"])
        self.all_done(explicit)

    def test_other_forms(self) -> None:
        """A line has the token as JSON has it, octets have it in the head; a message with token and epoch can be posted back."""
        stand = self.stand()
        self.put(stand, b"line", b"octets")
        query = f"/v1/sub?ack=explicit&ackTimeout={HOUR}&timeout=10000"
        line = json.loads(stand.sub.request("GET", query, None, LINES).body)
        octets = stand.sub.request("GET", query, None, OCTETS)
        self.assertEqual((line["value"], octets.body), ("line", b"octets"))
        self.assertEqual(octets.headers["epoch"], str(line["epoch"]))
        self.ack(stand, line, octets.headers["ack.token"])
        self.all_done(stand)
        self.put_batch(stand, [line])
        self.assertEqual(self.values(stand), ["line"])

    def test_wrong_calls_change_nothing(self) -> None:
        """What is malformed is 400, what is no JSON 415, what is no subkey 401: no lease is touched."""
        stand = self.stand()
        self.put(stand, b"a")
        [a] = self.lease(stand, 1)
        with self.unchanged(stand):
            for route, body in WRONG_CALLS:
                made = body.replace(b'"x"', b'"%b"' % a["ack"].encode(), 1)
                reply = stand.sub.request("POST", f"/v1/{route}", made, {"content-type": "application/json"})
                self.assert_refused(reply, 400, "bad_body", (route, body[:60]))
            whole = json.dumps({"tokens": [a["ack"]]}).encode()
            self.assert_refused(stand.sub.request("POST", "/v1/ack?tokens=x", whole), 400, "bad_parameter")
            self.assert_refused(stand.sub.request("POST", "/v1/ack", whole, {"content-type": "text/plain"}), 415, "unsupported_media_type")
            self.assert_refused(stand.pub.request("POST", "/v1/ack", whole), 401, "bad_credentials")
            self.assert_refused(stand.sub.request("GET", "/v1/ack"), 405, "method_not_allowed")
        self.assertEqual(self.out(stand), 1)
        self.ack(stand, a)
