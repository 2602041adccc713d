"""The registrar's topics."""

from typing import Any

import msgspec

from psubd.errors import (
    BadBody,
    Exists,
    Forbidden,
    InUse,
    NotFound,
    RegistryUnavailable,
    StorageTimeout,
    StorageUnavailable,
    TopicMissing,
    VersionMismatch,
)
from psubd.model import Binding, Bindings, Elastic, Group, Topic, TopicSpec
from psubd.services.registrar_topics import ROOM
from psubd.storage.memory import MemoryStorage

from .test_registrar import FaultyStorage, RegistrarCase


class TopicCase(RegistrarCase):
    """With applications ``shop`` and ``bank``."""

    def setUp(self) -> None:
        super().setUp()
        self.application("shop")
        self.application("bank")

    def create(self, owner: str = "shop", elastic: Elastic | None = None, given: bool = True, **spec: Any):
        return self.registrar.create_topic(TopicSpec(**{"name": "orders", **spec}), owner, elastic, given, "t")

    def alter(self, if_match: int | None = None, **changes: Any):
        return self.registrar.alter_topic("orders", changes, "t", if_match)

    def delete(self, force: bool = False, data: bool = False, if_match: int | None = None):
        return self.registrar.delete_topic("orders", force, data, "t", if_match)


class CreateTests(TopicCase):
    """Making and adopting."""

    def test_create(self) -> None:
        """A topic is made in the storage, registered as it stands there, and its owner is bound for pub, in one change."""
        topic = self.wait(
            self.create(partitions=3, retention_ms=1000, retention_bytes=5, elastic=Elastic(9), config={"message.timestamp.after.max.ms": "5"})
        )
        stored = self.storage.known("orders")
        self.assertEqual((topic.uid, topic.partitions, topic.retention_ms, topic.retention_bytes), (stored.uid, 3, 1000, 5))
        self.assertEqual((topic.owner, topic.adopted, topic.elastic, topic.replication), ("shop", False, Elastic(9), stored.replication))
        self.assertEqual(topic.config, {"message.timestamp.after.max.ms": "5"})
        self.assertEqual(self.entry("/topics/orders", Topic), topic)
        binding = self.entry("/bindings/shop", Bindings).items["orders"]
        self.assertEqual(binding, Binding("shop", "orders", topic.serial, pub=True, version=topic.serial))
        self.assertEqual(self.what()[-1], "topic.created orders")
        self.assertEqual(self.registry.history(0)[-1].paths, ("/topics/orders", "/bindings/shop"))

    def test_its_largest_message(self) -> None:
        """A topic that is made takes a message of the configured size with key and headers."""
        self.wait(self.create(max_message_bytes=1))
        self.assertEqual(self.storage.known("orders").max_message_bytes, 1_048_576 + ROOM)

    def test_adopt(self) -> None:
        """A topic that the storage has is adopted as it stands there."""
        stored = self.wait(self.storage.create_topic(TopicSpec("orders", 5, retention_ms=7, cleanup="compact", max_message_bytes=99)))
        topic = self.wait(self.create(given=False, retention_ms=999))
        self.assertTrue(topic.adopted)
        self.assertEqual((topic.uid, topic.partitions, topic.retention_ms, topic.cleanup), (stored.uid, 5, 7, "compact"))
        self.assertEqual(self.storage.known("orders"), stored)
        self.assertEqual(self.what()[-1], "topic.adopted orders")

    def test_adopt_with_partitions(self) -> None:
        """Partitions that were given must be those that are there."""
        self.wait(self.storage.create_topic(TopicSpec("orders", 5)))
        self.assertIn("5 partitions", self.refused(Exists, lambda: self.create(partitions=4)).detail)
        self.refused(BadBody, lambda: self.create(given=False, elastic=Elastic(4)))
        self.assertTrue(self.wait(self.create(partitions=5)).adopted)

    def test_made_by_somebody_in_between(self) -> None:
        """A topic that appears between the look and the making is adopted."""

        def before(name: str) -> None:
            if name == "create_topic":
                self.storage.before = lambda name: None
                self.wait(self.storage.create_topic(TopicSpec("orders", 2)))

        self.storage.before = before
        self.assertTrue(self.wait(self.create(given=False)).adopted)

    def test_never_adopted(self) -> None:
        """Who must not adopt is refused for what the storage has, also for what appeared in between; it stays as it is, and nobody's."""

        def before(name: str) -> None:
            if name == "create_topic":
                self.wait(MemoryStorage.create_topic(self.storage, TopicSpec("orders", 2)))
                self.storage.before = lambda name: None

        self.storage.before = before
        for _ in range(2):
            with self.assertRaises(Exists):
                self.wait(self.registrar.create_topic(TopicSpec("orders", 1), "shop", None, True, "t", adopt=False))
            self.assertEqual(self.storage.known("orders").partitions, 2)
        self.assertNotIn("delete_topic", self.storage.calls)

    def test_at_most(self) -> None:
        """Who owns so many topics gets no more, by the registry of the moment at which it counts: another node may have made one. What was made in
        the storage goes again."""

        def limited(registrar: Any, name: str) -> Any:
            return registrar.create_topic(TopicSpec(name), "shop", None, True, "t", adopt=False, most=2)

        self.wait(limited(self.registrar, "first"))
        self.wait(self.create("bank", name="theirs"))
        other = type(self.registrar)(self.registry, self.storage, self.clock, 1000)
        self.registry.held = True
        second, third = limited(self.registrar, "second"), limited(other, "third")
        self.registry.release()
        self.assertEqual(self.wait(second).id, "second")
        self.refused(Forbidden, lambda: third)
        self.refused(Forbidden, lambda: limited(self.registrar, "fourth"))
        self.assertEqual(sorted(self.wait(self.storage.describe(["first", "second", "third", "fourth"]))), ["first", "second"])
        self.wait(self.create(name="more"))

    def test_refused(self) -> None:
        """An id, a number or an owner that cannot be: refused, naming the field; nothing is made anywhere."""
        for id in ("", ".", "..", "__x", "a/b", "x" * 201, "a\n"):
            self.assertIn("id:", self.refused(BadBody, lambda id=id: self.create(name=id)).detail)
        for field, value in (
            ("partitions", 0),
            ("partitions", 10_001),
            ("partitions", True),
            ("replication", 0),
            ("retention_ms", 0),
            ("retention_bytes", 0),
            ("retention_ms", 2**63),
            ("cleanup", "burn"),
            ("config", {"a": 1}),
            ("config", {"": "x"}),
            ("config", {"a\n": "x"}),
            ("config", {"a": "x" * 4097}),
            ("config", {f"n{n}": "x" for n in range(101)}),
            ("config", {"no.such.setting": "x"}),
        ):
            said = self.refused(BadBody, lambda f=field, v=value: self.create(**{f: v})).detail
            self.assertIn(field, said)
        self.assertIn("owner", self.refused(BadBody, lambda: self.create(owner="none")).detail)
        for most in (0, 1, 10_001):
            self.assertIn("elastic", self.refused(BadBody, lambda m=most: self.create(partitions=2, elastic=Elastic(m))).detail)
        self.assertEqual(self.state()[1], {})

    def test_registered_already(self) -> None:
        """A registered topic is not made again, by nobody."""
        self.wait(self.create())
        for owner in ("shop", "bank"):
            self.refused(Exists, lambda owner=owner: self.create(owner=owner))

    def test_storage_away(self) -> None:
        """With the storage away nothing is registered."""
        for call in ("describe", "create_topic"):
            self.storage.faults = {call: StorageUnavailable("away")}
            self.refused(StorageUnavailable, lambda: self.create())

    def test_registry_away(self) -> None:
        """What was made in the storage a moment ago is taken back; what was adopted stays."""
        self.registry.refuse = RegistryUnavailable("full")
        self.refused(RegistryUnavailable, lambda: self.create())
        self.assertIn("delete_topic", self.storage.calls)
        self.wait(self.storage.create_topic(TopicSpec("orders")))
        self.refused(RegistryUnavailable, lambda: self.create())

    def test_cannot_be_taken_back(self) -> None:
        """Where it cannot be taken back it stays empty and unregistered, and making it again adopts it."""
        self.registry.refuse = RegistryUnavailable("full")
        self.storage.faults = {"delete_topic": StorageUnavailable("away")}
        with self.assertRaises(RegistryUnavailable):
            self.wait(self.create())
        self.registry.refuse, self.storage.faults = None, {}
        self.assertTrue(self.wait(self.create()).adopted)

    def test_two_at_once(self) -> None:
        """Of two that make the same topic at once one does, and the other is refused; the topic is there."""
        self.registry.held = True
        first, second = self.create(), self.create("bank")
        self.registry.release()
        self.assertEqual(self.wait(first).owner, "shop")
        with self.assertRaises(Exists):
            self.wait(second)
        self.assertEqual(self.storage.known("orders").uid, self.entry("/topics/orders", Topic).uid)

    def test_another_node_registers_it_first(self) -> None:
        """Another node's registration of the topic that we made in the storage keeps it there."""
        other = type(self.registrar)(self.registry, self.storage, self.clock, 1000)
        self.registry.held = True
        first = self.create()
        second = other.create_topic(TopicSpec("orders"), "bank", None, False, "t")
        queue = self.registry._queue
        queue.reverse()
        self.registry.release()
        self.assertTrue(self.wait(second).adopted)
        with self.assertRaises(Exists):
            self.wait(first)
        self.assertEqual(self.storage.known("orders").uid, self.entry("/topics/orders", Topic).uid)

    def test_too_many_bindings(self) -> None:
        """An owner whose bindings fill their path gets no more; the storage's topic goes again."""
        self.fill_bindings("shop")
        self.assertIn("too many bindings", self.refused(InUse, lambda: self.create(name="z" * 200)).detail)


class AlterTests(TopicCase):
    """Changing."""

    def setUp(self) -> None:
        super().setUp()
        self.made = self.wait(self.create(partitions=2, config={"message.timestamp.after.max.ms": "5"}))

    def test_alter(self) -> None:
        """Storage and registry both have the new; what is absent stays, and so do uid and serial."""
        topic = self.wait(
            self.alter(partitions=4, retention_ms=None, retention_bytes=77, elastic=Elastic(8), config={"message.timestamp.before.max.ms": "9"})
        )
        stored = self.storage.known("orders")
        self.assertEqual((stored.partitions, stored.retention_ms, stored.retention_bytes), (4, None, 77))
        self.assertEqual((topic.partitions, topic.retention_ms, topic.retention_bytes, topic.elastic), (4, None, 77, Elastic(8)))
        self.assertEqual(topic.config, {"message.timestamp.after.max.ms": "5", "message.timestamp.before.max.ms": "9"})
        self.assertEqual((topic.uid, topic.serial, topic.owner), (self.made.uid, self.made.serial, "shop"))
        self.assertEqual(self.entry("/topics/orders", Topic), topic)
        self.assertEqual(self.version("/topics/orders"), 2)
        self.assertEqual(self.what()[-1], "topic.altered orders")
        self.assertIsNone(self.wait(self.alter(elastic=None)).elastic)
        self.assertEqual(self.wait(self.alter(elastic={"max_partitions": 6})).elastic, Elastic(6))

    def test_refused(self) -> None:
        """Fewer partitions, numbers out of range, unknown fields, a version of the past: refused, naming the field; nothing is changed."""
        for changes in (
            {"partitions": 1},
            {"partitions": 10_001},
            {"partitions": None},
            {"retention_ms": 0},
            {"retention_bytes": -1},
            {"config": {"no.such.setting": "x"}},
            {"config": None},
            {"elastic": Elastic(1)},
            {"elastic": Elastic(2), "partitions": 3},
            {"owner": "bank"},
            {"cleanup": "compact"},
            {"replication": 2},
        ):
            said = self.refused(BadBody, lambda changes=changes: self.alter(**changes)).detail
            self.assertIn(next(iter(changes)), said)
        self.refused(VersionMismatch, lambda: self.alter(if_match=9, partitions=3))
        self.refused(NotFound, lambda: self.registrar.alter_topic("none", {"partitions": 3}, "t", None))

    def test_registry_in_doubt(self) -> None:
        """Where it cannot be told whether it is registered, the storage keeps what was asked for, as after a crash."""
        self.registry.refuse = StorageTimeout("stopped in the middle")
        with self.assertRaises(StorageTimeout):
            self.wait(self.alter(retention_ms=77))
        self.assertEqual(self.storage.known("orders").retention_ms, 77)

    def test_the_same_partitions(self) -> None:
        """The partitions that are there already are no mistake: the way to set right what a crash left."""
        self.wait(self.storage.grow("orders", 4))
        self.assertEqual(self.wait(self.alter(partitions=4)).partitions, 4)
        self.assertIn("has 4", self.refused(BadBody, lambda: self.alter(partitions=3)).detail)

    def test_gone_from_the_storage(self) -> None:
        """A topic that the storage lost, or has made anew, is told and not altered."""
        self.wait(self.storage.delete_topic("orders"))
        self.refused(TopicMissing, lambda: self.alter(partitions=3))
        self.wait(self.storage.create_topic(TopicSpec("orders")))
        self.refused(TopicMissing, lambda: self.alter(partitions=3))

    def test_taken_back(self) -> None:
        """Where storage or registry fail half way, the settings are set back."""
        changes = {"retention_ms": 5, "retention_bytes": 6, "config": {"message.timestamp.after.max.ms": "7"}}
        self.storage.faults = {"grow": StorageUnavailable("away")}
        self.refused(StorageUnavailable, lambda: self.alter(partitions=3, **changes))
        self.storage.faults = {}
        self.registry.refuse = RegistryUnavailable("full")
        self.refused(RegistryUnavailable, lambda: self.alter(**changes))

    def test_partitions_cannot_be_taken_back(self) -> None:
        """New partitions stay in the storage where the registry failed; the next try is taken."""
        self.registry.refuse = RegistryUnavailable("full")
        with self.assertRaises(RegistryUnavailable):
            self.wait(self.alter(partitions=3))
        self.registry.refuse = None
        self.assertEqual(self.wait(self.alter(partitions=3)).partitions, 3)


class DeleteTests(TopicCase):
    """Deleting."""

    def setUp(self) -> None:
        super().setUp()
        self.wait(self.create())

    def test_delete(self) -> None:
        """A topic that only its owner is bound to goes with its data and its owner's binding and places."""
        self.bind(sub=True, pub=True)
        self.assertEqual(self.wait(self.delete())["bindings"], ["shop/orders"])
        entries, topics, places = self.state()
        self.assertEqual(sorted(entries), ["/applications/bank", "/applications/shop", "/groups/shop"])
        self.assertEqual(self.entry("/groups/shop", Group).topics, {})
        self.assertEqual((topics, places), ({}, {}))
        self.assertEqual(self.what()[-1], "topic.deleted orders")

    def test_in_use(self) -> None:
        """While another application is bound, or a binding names it as its dead-letter topic, it stays, and the refusal names them."""
        self.bind("bank", sub=True)
        self.assertIn("bound: bank/orders", self.refused(InUse, lambda: self.delete()).detail)
        self.wait(self.registrar.delete_binding("bank", "orders", "t", None))
        self.topic("money", "shop")
        self.bind("shop", "money", sub=True, dead_letter="orders")
        self.assertIn("dead-letter topic of: shop/money", self.refused(InUse, lambda: self.delete()).detail)
        self.refused(VersionMismatch, lambda: self.delete(force=True, if_match=99))
        self.refused(NotFound, lambda: self.registrar.delete_topic("none", True, True, "t", None))

    def test_forced(self) -> None:
        """Forced, all bindings on it go, those that name it as dead-letter topic lose that, and no group stands on it; all is named."""
        self.topic("money", "bank")
        self.bind("bank", "money", sub=True, max_attempts=2, dead_letter="orders")
        self.bind("bank", "orders", sub=True)
        self.named_group("bank.a", "orders", "money")
        went = self.wait(self.delete(force=True))
        self.assertEqual(went, {"bindings": ["bank/orders", "shop/orders"], "dead_letters": ["bank/money"], "groups": []})
        left = self.entry("/bindings/bank", Bindings).items
        self.assertEqual(set(left), {"money"})
        self.assertEqual(
            (left["money"].dead_letter, left["money"].max_attempts, left["money"].version), (None, None, self.registry.snapshot().serial)
        )
        for group in ("bank", "bank.a"):
            self.assertEqual(set(self.entry(f"/groups/{group}", Group).topics), {"money"})
            self.assertEqual({place.topic for place in self.places(group)}, {"money"})

    def test_adopted(self) -> None:
        """An adopted topic is forgotten and its data stays, unless the data is to go."""
        stored = self.wait(self.storage.create_topic(TopicSpec("theirs")))
        for data, left in ((False, stored), (True, None)):
            self.wait(self.registrar.create_topic(TopicSpec("theirs"), "shop", None, False, "t"))
            self.wait(self.registrar.delete_topic("theirs", False, data, "t", None))
            self.assertEqual(self.storage.known("theirs"), left)

    def test_made_anew_behind_our_back(self) -> None:
        """A topic of that name that is not the registered one keeps its data."""
        self.wait(self.storage.delete_topic("orders"))
        stored = self.wait(self.storage.create_topic(TopicSpec("orders")))
        self.wait(self.delete(data=True))
        self.assertEqual(self.storage.known("orders"), stored)

    def test_gone_from_the_storage(self) -> None:
        """A topic that the storage lost can be deleted."""
        self.wait(self.storage.delete_topic("orders"))
        self.wait(self.delete())
        self.assertNotIn("/topics/orders", self.state()[0])

    def test_storage_away(self) -> None:
        """A storage that is away refuses it before anything is changed; going away in the middle is told."""
        self.storage.faults = {"describe": StorageUnavailable("away")}
        self.refused(StorageUnavailable, lambda: self.delete())
        self.storage.faults = {"delete_topic": StorageUnavailable("away")}
        with self.assertRaises(StorageUnavailable):
            self.wait(self.delete())
        self.storage.faults = {}
        self.assertTrue(self.wait(self.create()).adopted)
        self.wait(self.delete(data=True))
        self.assertIsNone(self.storage.known("orders"))

    def test_made_again(self) -> None:
        """A topic made again is another one: no binding but its owner's, no place."""
        self.bind("bank", sub=True)
        first = self.entry("/topics/orders", Topic)
        self.wait(self.delete(force=True))
        second = self.wait(self.create())
        self.assertNotEqual((first.uid, first.serial), (second.uid, second.serial))
        self.assertNotEqual(first.uid, second.uid)
        self.assertEqual(set(self.gate.bindings_of("orders")), {"shop"})
        self.assertEqual(self.places("bank"), {})


class TellingStorage(FaultyStorage):
    """Keeps every setting that a topic is made with as the topic's own, as Kafka does."""

    def create_topic(self, spec: TopicSpec):
        own = {
            "cleanup.policy": spec.cleanup,
            "retention.ms": str(-1 if spec.retention_ms is None else spec.retention_ms),
            "retention.bytes": str(-1 if spec.retention_bytes is None else spec.retention_bytes),
            "max.message.bytes": str(spec.max_message_bytes),
        }
        return super().create_topic(msgspec.structs.replace(spec, config={**own, **spec.config}))


class ConfigTests(TopicCase):
    """What is registered as a topic's config, where the storage tells more than was asked for."""

    def setUp(self) -> None:
        super().setUp()
        self.storage = TellingStorage(self.clock)
        self.wait(self.storage.start())
        self.registrar = type(self.registrar)(self.registry, self.storage, self.clock, 1_048_576)

    def test_made(self) -> None:
        """The request's own config, and nothing that psubd sets by itself."""
        self.assertEqual(self.wait(self.create(name="plain")).config, {})
        asked = {"message.timestamp.after.max.ms": "5", "retention.ms": "77"}
        topic = self.wait(self.create(retention_ms=9, config=asked))
        self.assertEqual((topic.config, topic.retention_ms), (asked, 77))

    def test_altered(self) -> None:
        """What was asked for later comes to it; a setting that has a member too says the same as the member."""
        self.wait(self.create(config={"retention.ms": "77"}))
        topic = self.wait(self.alter(config={"message.timestamp.after.max.ms": "5"}))
        self.assertEqual(topic.config, {"retention.ms": "77", "message.timestamp.after.max.ms": "5"})
        topic = self.wait(self.alter(retention_ms=None))
        self.assertEqual((topic.config["retention.ms"], topic.retention_ms), ("-1", None))

    def test_adopted(self) -> None:
        """What is set on the topic itself, but for what a topic has members for."""
        self.wait(self.storage.create_topic(TopicSpec("orders", 2, retention_ms=5, max_message_bytes=99, config={"delete.retention.ms": "8"})))
        topic = self.wait(self.create(given=False, config={"delete.retention.ms": "9"}))
        self.assertEqual((topic.config, topic.retention_ms), ({"max.message.bytes": "99", "delete.retention.ms": "8"}, 5))
