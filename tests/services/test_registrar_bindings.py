"""The registrar's bindings, and where an application's own group begins."""

from typing import Any

from psubd.delivery.cursor import decode
from psubd.errors import BadBody, InUse, NotFound, RegistryUnavailable, StorageUnavailable, TopicMissing, VersionMismatch
from psubd.model import Backoff, Binding, Bindings, Group, GroupTopic, Rate, Topic, TopicPartition, TopicSpec
from psubd.services.registrar import Registrar
from psubd.services.registrar_rules import check_binding

from .test_registrar import RegistrarCase


class BindingCase(RegistrarCase):
    """With ``shop``, which owns ``orders`` (two partitions) and ``dead``, and ``bank``."""

    def setUp(self) -> None:
        super().setUp()
        self.application("shop")
        self.application("bank")
        self.made = self.topic(partitions=2)
        self.topic("dead")

    def put(self, application: str = "bank", topic: str = "orders", if_match: int | None = None, **settings: Any):
        return self.registrar.put_binding(Binding(application, topic, 0, **settings), "t", if_match)

    def delete(self, application: str = "bank", topic: str = "orders", if_match: int | None = None):
        return self.registrar.delete_binding(application, topic, "t", if_match)


class PutTests(BindingCase):
    """Granting and changing."""

    def test_pub(self) -> None:
        """A binding is made; with ``pub`` alone no group begins and the storage is not touched."""
        self.storage.calls.clear()
        binding, made = self.wait(self.put(pub=True))
        self.assertTrue(made)
        self.assertEqual(binding, Binding("bank", "orders", binding.serial, pub=True, version=binding.serial))
        self.assertEqual(self.entry("/bindings/bank", Bindings).items, {"orders": binding})
        self.assertEqual(self.storage.calls, [])
        self.assertIsNone(self.registry.snapshot().get("/groups/bank"))
        self.assertEqual(self.what()[-1], "binding.put bank/orders")

    def test_sub_latest(self) -> None:
        """The application's own group begins at the ends of the moment: nothing published later is lost, nothing before is there."""
        self.publish(partition=0, count=3)
        binding, _ = self.wait(self.put(sub=True))
        self.publish(partition=0)
        places = self.places("bank")
        self.assertEqual({place: commit.offset for place, commit in places.items()}, {TopicPartition("orders", 0): 3, TopicPartition("orders", 1): 0})
        for commit in places.values():
            cursor = decode(commit)
            self.assertEqual((cursor.uid, cursor.mark, cursor.reset), (self.made.uid, binding.mark, 0))
        group = self.entry("/groups/bank", Group)
        self.assertEqual(group.topics, {"orders": GroupTopic(self.made.uid, binding.mark, 0)})
        self.assertEqual((group.application, group.name, group.serial), ("bank", "bank", binding.serial))
        self.assertEqual(self.registry.history(0)[-1].paths, ("/bindings/bank", "/groups/bank"))

    def test_sub_earliest(self) -> None:
        """With ``start`` earliest it begins where the log does."""
        self.publish(count=3)
        self.wait(self.put(sub=True, start="earliest"))
        self.assertEqual({commit.offset for commit in self.places("bank").values()}, {0})

    def test_place_before_grant(self) -> None:
        """The place is in the storage before anybody is granted anything."""
        seen = []

        def before(name: str) -> None:
            if name == "commit":
                seen.append(self.registry.snapshot().get("/bindings/bank"))

        self.storage.before = before
        self.wait(self.put(sub=True))
        self.assertEqual(seen, [None])

    def test_a_put_moves_no_cursor(self) -> None:
        """A later PUT replaces all settings, keeps mark and serial, has the change's serial as its version, and touches no place."""
        first, _ = self.wait(self.put(sub=True, pub=True, ordered=True, max_in_flight=5, rate=Rate(messages_per_s=1)))
        self.publish(count=4)
        places = self.places("bank")
        self.storage.calls.clear()
        second, made = self.wait(self.put(sub=True, start="earliest"))
        self.assertFalse(made)
        self.assertEqual(
            second, Binding("bank", "orders", first.serial, sub=True, start="earliest", mark=first.mark, version=self.registry.snapshot().serial)
        )
        self.assertEqual(self.storage.calls, [])
        self.assertEqual(self.places("bank"), places)

    def test_sub_again(self) -> None:
        """``sub`` taken away and granted again begins anew, under another mark; the binding is the same one."""
        first, _ = self.wait(self.put(sub=True, pub=True))
        self.named_group("bank.x", "orders")
        self.publish(count=2)
        taken, _ = self.wait(self.put(pub=True))
        self.assertEqual((taken.mark, taken.serial, taken.version), ("", first.serial, self.registry.snapshot().serial))
        for group in ("bank", "bank.x"):
            self.assertEqual(self.entry(f"/groups/{group}", Group).topics, {})
            self.assertEqual(self.places(group), {})
        again, made = self.wait(self.put(sub=True, pub=True))
        self.assertFalse(made)
        self.assertNotEqual(again.mark, first.mark)
        self.assertEqual(self.places("bank")[TopicPartition("orders", 0)].offset, 2)
        self.assertEqual(self.entry("/groups/bank", Group).topics["orders"].mark, again.mark)
        self.assertEqual(self.entry("/groups/bank.x", Group).topics, {})

    def test_sub_added_to_pub(self) -> None:
        """``sub`` added to a binding begins the group then."""
        self.wait(self.put(pub=True))
        self.publish(count=2)
        binding, made = self.wait(self.put(pub=True, sub=True))
        self.assertFalse(made)
        self.assertEqual(binding.version, self.registry.snapshot().serial)
        self.assertEqual(self.places("bank")[TopicPartition("orders", 0)].offset, 2)

    def test_two_topics(self) -> None:
        """An application's group stands on all its topics; one PUT touches its own only."""
        first, _ = self.wait(self.put(sub=True))
        second, _ = self.wait(self.put(topic="dead", sub=True))
        group = self.entry("/groups/bank", Group)
        self.assertEqual({topic: place.mark for topic, place in group.topics.items()}, {"orders": first.mark, "dead": second.mark})
        self.assertEqual(group.serial, first.serial)
        self.assertEqual(set(self.entry("/bindings/bank", Bindings).items), {"orders", "dead"})

    def test_an_owners_binding(self) -> None:
        """An owner's binding is one like any other: it may be changed, and taken away."""
        binding, made = self.wait(self.put("shop", sub=True))
        self.assertFalse(made)
        self.assertFalse(binding.pub)
        self.wait(self.delete("shop"))
        self.assertNotIn("orders", self.gate.grant_of("shop").bindings)

    def test_the_callers_serials_are_ignored(self) -> None:
        """Serial, version and mark are the registrar's."""
        binding, _ = self.wait(self.registrar.put_binding(Binding("bank", "orders", 77, sub=True, mark="mine", version=88), "t", None))
        self.assertEqual((binding.serial, binding.version), (self.registry.snapshot().serial, self.registry.snapshot().serial))
        self.assertNotEqual(binding.mark, "mine")

    def test_not_registered(self) -> None:
        """An application or a topic that is not registered: not found."""
        self.refused(NotFound, lambda: self.put("none", pub=True))
        self.refused(NotFound, lambda: self.put(topic="none", pub=True))
        self.refused(NotFound, lambda: self.put("a/b", pub=True))

    def test_refused(self) -> None:
        """Every setting out of its range is refused, naming it; nothing is changed in registry or storage."""
        for field, settings in (
            ("pub, sub", {"sub": False}),
            ("ack_timeout_ms", {"ack_timeout_ms": 999}),
            ("ack_timeout_ms", {"ack_timeout_ms": 43_200_001}),
            ("max_in_flight", {"max_in_flight": 0}),
            ("max_in_flight", {"max_in_flight": 100_001}),
            ("max_attempts", {"max_attempts": 0, "dead_letter": "dead"}),
            ("max_attempts", {"max_attempts": 1001, "dead_letter": "dead"}),
            ("max_attempts", {"max_attempts": 3}),
            ("dead_letter", {"dead_letter": "orders"}),
            ("dead_letter", {"dead_letter": "none"}),
            ("backoff.min", {"backoff": Backoff(-1, 5)}),
            ("backoff.max", {"backoff": Backoff(0, 43_200_001)}),
            ("backoff", {"backoff": Backoff(6, 5)}),
            ("rate", {"rate": Rate()}),
            ("rate.messages_per_s", {"rate": Rate(messages_per_s=0)}),
            ("rate.bytes_per_s", {"rate": Rate(bytes_per_s=-1)}),
            ("rate.burst_s", {"rate": Rate(messages_per_s=1, burst_s=0)}),
            ("rate.burst_s", {"rate": Rate(messages_per_s=1, burst_s=3601)}),
            ("ack", {"ack": "maybe"}),
            ("start", {"start": "middle"}),
            ("max_in_flight", {"max_in_flight": True}),
            ("ordered", {"ordered": "yes"}),
        ):
            said = self.refused(BadBody, lambda settings=settings: self.put(**{"sub": True, **settings})).detail
            self.assertIn(field, said)

    def test_the_ends_of_the_ranges(self) -> None:
        """The bounds themselves are taken."""
        for settings in (
            {"ack_timeout_ms": 1000, "max_in_flight": 1, "max_attempts": 1, "dead_letter": "dead"},
            {"ack_timeout_ms": 43_200_000, "max_in_flight": 100_000, "max_attempts": 1000, "dead_letter": "dead"},
            {"backoff": Backoff(5, 5), "rate": Rate(messages_per_s=1, bytes_per_s=10**12, burst_s=3600)},
            {"dead_letter": "dead"},
        ):
            check_binding(Binding("bank", "orders", 0, sub=True, **settings))

    def test_a_dead_letter_topic_needs_no_binding(self) -> None:
        """Any registered topic but the source may be the dead-letter topic."""
        self.assertEqual(self.wait(self.put(sub=True, max_attempts=3, dead_letter="dead"))[0].dead_letter, "dead")

    def test_if_match(self) -> None:
        """The binding's own version counts, whatever else stands at its path; none there matches none."""
        self.refused(VersionMismatch, lambda: self.put(pub=True, if_match=1))
        seen = self.wait(self.put(pub=True))[0].version
        self.wait(self.put(topic="dead", pub=True))
        other = self.wait(self.put(topic="dead", sub=True))[0].version
        self.refused(VersionMismatch, lambda: self.put(sub=True, if_match=other))
        present = self.wait(self.put(sub=True, if_match=seen))[0].version
        self.assertGreater(present, seen)
        self.refused(VersionMismatch, lambda: self.delete(if_match=seen))
        self.wait(self.delete(if_match=present))

    def test_storage_away(self) -> None:
        """Where the group's place cannot be kept nothing is granted, and what was kept goes again."""
        for call in ("bounds", "commit"):
            self.storage.faults = {call: StorageUnavailable("away")}
            self.refused(StorageUnavailable, lambda: self.put(sub=True))
        self.storage.faults = {}
        self.wait(self.storage.delete_topic("orders"))
        self.refused(TopicMissing, lambda: self.put(sub=True))

    def test_registry_away(self) -> None:
        """A grant that the registry did not take leaves no place behind; a PUT that keeps ``sub`` touches none."""
        self.registry.refuse = RegistryUnavailable("full")
        self.refused(RegistryUnavailable, lambda: self.put(sub=True))
        self.assertIn("forget", self.storage.calls)
        self.registry.refuse = None
        self.wait(self.put(sub=True))
        self.registry.refuse = RegistryUnavailable("full")
        self.refused(RegistryUnavailable, lambda: self.put(sub=True, pub=True))

    def test_too_many(self) -> None:
        """An application's bindings fill one path: one too many is refused, and its group gets no place."""
        self.fill_bindings("bank")
        said = self.refused(InUse, lambda: self.put(sub=True, dead_letter="dead")).detail
        self.assertIn("too many bindings", said)

    def test_another_node_comes_between(self) -> None:
        """Where another node grants ``sub`` between place and change, its mark stands, and its binding is changed, not replaced."""
        other = Registrar(self.registry, self.storage, self.clock, 1000)
        made = []

        def before(name: str) -> None:
            if name == "commit":
                self.storage.before = lambda name: None
                made.append(self.wait(other.put_binding(Binding("bank", "orders", 0, sub=True), "t", None))[0])

        self.storage.before = before
        binding, is_new = self.wait(self.put(sub=True, pub=True))
        self.assertEqual(
            (binding.mark, binding.serial, binding.version, is_new), (made[0].mark, made[0].serial, self.registry.snapshot().serial, False)
        )
        self.assertEqual(self.entry("/groups/bank", Group).topics["orders"].mark, made[0].mark)

    def test_the_topic_is_made_again_in_between(self) -> None:
        """A grant that was begun on a topic that is another one by now begins anew on that."""
        other = Registrar(self.registry, self.storage, self.clock, 1000)

        def before(name: str) -> None:
            if name == "commit":
                self.storage.before = lambda name: None
                self.wait(other.delete_topic("orders", True, True, "t", None))
                self.wait(other.create_topic(TopicSpec("orders", 3), "shop", None, True, "t"))

        self.storage.before = before
        self.wait(self.put(sub=True))
        uid = self.entry("/topics/orders", Topic).uid
        self.assertEqual(self.entry("/groups/bank", Group).topics["orders"].uid, uid)
        self.assertEqual({decode(commit).uid for commit in self.places("bank").values()}, {uid})
        self.assertEqual(len(self.places("bank")), 3)


class DeleteTests(BindingCase):
    """Revoking."""

    def test_delete(self) -> None:
        """The binding goes, no group of the application stands on the topic, and its places are forgotten; others keep theirs."""
        self.wait(self.put(sub=True))
        self.wait(self.put(topic="dead", sub=True))
        self.wait(self.put("shop", sub=True))
        self.named_group("bank.a", "orders", "dead")
        self.named_group("bank.b", "orders")
        self.wait(self.delete())
        self.assertEqual(set(self.entry("/bindings/bank", Bindings).items), {"dead"})
        for group, left in (("bank", {"dead"}), ("bank.a", {"dead"}), ("bank.b", set()), ("shop", {"orders"})):
            self.assertEqual(set(self.entry(f"/groups/{group}", Group).topics), left)
            self.assertEqual({place.topic for place in self.places(group)}, left)
        self.assertEqual(self.what()[-1], "binding.deleted bank/orders")

    def test_the_last_one(self) -> None:
        """With the last binding the path goes, too."""
        self.wait(self.put(pub=True))
        self.wait(self.delete())
        self.assertIsNone(self.registry.snapshot().get("/bindings/bank"))

    def test_refused(self) -> None:
        """Not bound, or another version: nothing is changed."""
        self.refused(NotFound, lambda: self.delete())
        self.refused(NotFound, lambda: self.delete("none", "none"))
        self.wait(self.put(sub=True))
        self.refused(VersionMismatch, lambda: self.delete(if_match=2))

    def test_storage_away(self) -> None:
        """A storage that is away delays no revocation: the places that stay count no more."""
        first, _ = self.wait(self.put(sub=True))
        self.publish(count=3)
        self.storage.faults = {"forget": StorageUnavailable("away")}
        self.wait(self.delete())
        self.assertIsNone(self.registry.snapshot().get("/bindings/bank"))
        self.assertEqual(decode(self.places("bank")[TopicPartition("orders", 0)]).mark, first.mark)
        again, made = self.wait(self.put(sub=True))
        self.assertTrue(made)
        self.assertNotEqual(again.mark, first.mark)
        self.assertEqual(self.places("bank")[TopicPartition("orders", 0)].offset, 3)

    def test_made_again(self) -> None:
        """A binding made again is another one, with another serial; no version that was seen before stands for it."""
        first, _ = self.wait(self.put(sub=True))
        self.wait(self.delete())
        second, made = self.wait(self.put(sub=True))
        self.assertTrue(made)
        self.assertGreater(second.version, first.version)
        self.assertNotEqual(first.serial, second.serial)
