"""No request makes another one fail (contract, section 2): what would have a broker refuse a whole batch, among good ones of another tenant."""

import threading

from psubd.testing.daemon import Reply, together
from psubd.testing.http_contract.steps import MEBIBYTE, Stand, Steps

NEIGHBOURS = 10
ROUNDS = 3
TWO_HOURS = 7_200_000


class Poisoned(Steps):
    """Poisons and their neighbours, all at the same time over parallel connections."""

    def at_once(self, good: Stand, bad: Stand, poison: bytes, headers: dict[str, str]) -> tuple[list[Reply], list[Reply]]:
        """Ten good messages of one tenant and the poison of the other, sent at the same moment, several rounds."""
        line_up = threading.Barrier(NEIGHBOURS + 1)

        def publish(number: int) -> list[Reply]:
            stand = bad if number == NEIGHBOURS else good
            client = self.data(stand.tenant.publish)
            replies = []
            for turn in range(ROUNDS):
                text = f"{turn}-{number}"
                line_up.wait(60)
                if number == NEIGHBOURS:
                    replies.append(client.request("POST", f"/v1/pub/{stand.topic}", poison, headers))
                else:
                    replies.append(client.request("POST", f"/v1/pub/{stand.topic}", text.encode(), {"key": text}))
            return replies

        *answered, poisoned = together(range(NEIGHBOURS + 1), publish)
        return [reply for replies in answered for reply in replies], poisoned

    def neighbour(self, **topic: object) -> tuple[Stand, Stand]:
        """A topic, and two tenants that publish to it: its owner and the poisoner."""
        shared, other = self.stand(topic=topic), self.tenant()
        self.bind(other.id, shared.topic, pub=True)
        return shared, self.standing(other, shared.topic)


class PoisonsContract(Poisoned):
    """What psubd judges before the storage sees it."""

    def story(self, shared: Stand, poisoner: Stand, poison: bytes, headers: dict[str, str], status: int, code: str) -> None:
        """On one topic and side by side on two: each poison is refused with its code, each neighbour is 200 and there, once; then all goes on."""
        for good in (shared, self.stand()):
            before = len(self.log(good))
            answered, poisoned = self.at_once(good, poisoner, poison, headers)
            self.assertEqual({reply.status for reply in answered}, {200}, answered)
            for reply in poisoned:
                self.assert_refused(reply, status, code)
            log = self.log(good)[before:]
            self.assertEqual(sorted(message["value"] for message in log), sorted(f"{turn}-{n}" for turn in range(ROUNDS) for n in range(NEIGHBOURS)))
            self.assertEqual({message["offset"] for message in log}, {reply.json["offset"] for reply in answered})
        self.put(shared, b"goes on", key="k")
        self.assertEqual(self.place(poisoner, b"goes on", {"key": "k"})["topic"], poisoner.topic)

    def test_two_hours_ahead(self) -> None:
        """A timestamp two hours ahead is 400; its neighbours are stored."""
        self.story(*self.neighbour(), b"x", {"timestamp": str(self.now() + TWO_HOURS)}, 400, "bad_header")

    def test_without_a_key_on_a_compacted_topic(self) -> None:
        """No key on a compacted topic is 400; its neighbours are stored."""
        self.story(*self.neighbour(cleanup="compact"), b"x", {}, 400, "bad_header")

    def test_a_byte_too_large(self) -> None:
        """1 MiB and a byte is 413; its neighbours are stored."""
        self.story(*self.neighbour(), b"x" * (MEBIBYTE + 1), {"key": "k"}, 413, "too_large")

    def test_exactly_a_mebibyte_among_others(self) -> None:
        """Exactly 1 MiB is 200, each time, and so are its neighbours."""
        shared, other = self.neighbour()
        answered, large = self.at_once(shared, other, b"x" * MEBIBYTE, {"key": "k", "header.a": "b"})
        self.assertEqual({reply.status for reply in (*answered, *large)}, {200})
        sizes = sorted(len(message["value"]) for message in self.log(shared))
        self.assertEqual(sizes, [3] * NEIGHBOURS * ROUNDS + [MEBIBYTE] * ROUNDS)

    def test_in_one_batch(self) -> None:
        """A poison inside of a batch refuses that batch, named by its number, and no batch of another tenant's."""
        shared, other = self.neighbour()
        records = [{"value": str(number)} for number in range(NEIGHBOURS)]
        poisoned = [*records[:4], {"value": "x", "timestamp": self.now() + TWO_HOURS}, *records[4:]]
        replies = together([(shared, records)] * 5 + [(other, poisoned)] * 3, lambda job: self.own_batch(*job))
        self.assertEqual([reply.status for reply in replies], [200] * 5 + [400] * 3)
        self.assertEqual([reply.json["record"] for reply in replies[5:]], [4] * 3)
        self.assertEqual(len(self.log(shared)), 5 * NEIGHBOURS)

    def own_batch(self, stand: Stand, records: list[dict[str, object]]) -> Reply:
        """A batch on a connection of its own."""
        return self.data(stand.tenant.publish).send("POST", f"/v1/pub/{stand.topic}/batch", {"records": records})
