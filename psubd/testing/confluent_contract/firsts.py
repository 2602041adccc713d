"""Instances of the first version (table 1b)."""

from typing import Any

from psubd.testing.confluent_contract.steps import V1, ConfluentSteps, Instance, b64, embedded
from psubd.testing.daemon import Reply
from psubd.testing.http_contract.steps import Stand


class FirstsContract(ConfluentSteps):
    def first(self, stand: Stand, id: str | None = None, **settings: Any) -> Instance:
        """An instance of the first version, of format ``json``."""
        return self.make(stand, id, type=V1, **{"format": "json", **settings})

    def topic(self, instance: Instance, topic: str, query: str = "timeout=1000", accept: str | None = None) -> Reply:
        return instance.ask("GET", f"/topics/{topic}?{query}", accept=accept)

    def test_from_joining_to_leaving(self) -> None:
        """The first read is the subscription; four members; a commit tells the last offsets; it does not commit by itself."""
        stand = self.stand()
        self.store(stand, {"n": 1}, 2)
        instance = self.make(stand, type=V1, auto_commit_enable=None)
        common = {"key": None, "partition": 0}
        expected = [{**common, "value": b64(b'{"n": 1}'), "offset": 0}, {**common, "value": b64(b"2"), "offset": 1}]
        self.says(self.topic(instance, stand.topic), expected, embedded("binary", 1))
        self.says(self.topic(instance, stand.topic, "timeout=0"), [], embedded("binary", 1))
        at = {"topic": stand.topic, "partition": 0}
        for more in ({"accept": V1}, {}):
            self.says(instance.ask("POST", "/offsets", **more), [{**at, "consumed": 1, "committed": 1}], V1)
        self.done(instance.leave())
        self.told(instance.ask("DELETE", "", accept=V1), 404, 40403, V1)
        self.store(stand, 3)
        again = self.first(stand)
        self.assertEqual([record["value"] for record in self.topic(again, stand.topic).json], [3])
        self.done(again.leave())
        once_more = self.first(stand)
        self.assertEqual([record["value"] for record in self.topic(once_more, stand.topic).json], [3])

    def test_one_topic_an_instance(self) -> None:
        """Another one is 40901, what is not bound 40401; it goes on with its own."""
        stand, other = self.stand(), self.stand()
        self.bind(stand.id, other.topic, sub=True, start="earliest")
        instance = self.first(stand)
        self.told(self.topic(instance, self.name()), 404, 40401)
        self.assertEqual(self.topic(instance, stand.topic, "timeout=0").status, 200)
        self.told(self.topic(instance, other.topic), 409, 40901)
        self.store(stand, 1)
        self.assertEqual([record["value"] for record in self.topic(instance, stand.topic).json], [1])

    def test_accept_in_the_first_version(self) -> None:
        """Its own types; another format is 40601."""
        stand = self.stand()
        instance = self.first(stand)
        for accept, type in (
            (embedded("json", 1), embedded("json", 1)),
            (f"{V1}, application/vnd.kafka+json, application/json", embedded("json", 1)),
            ("application/json", "application/json"),
        ):
            self.says(self.topic(instance, stand.topic, "timeout=0", accept), [], type)
        self.told(self.topic(instance, stand.topic, accept=embedded("binary", 1)), 406, 40601, V1)

    def test_max_bytes(self) -> None:
        """Bounds the answer; a record that is larger comes alone."""
        stand = self.stand()
        self.store(stand, "a" * 100, "b", "c")
        instance = self.first(stand)
        found = [[record["offset"] for record in self.topic(instance, stand.topic, "timeout=1000&max_bytes=10").json] for _ in range(2)]
        self.assertEqual(found, [[0], [1, 2]])
