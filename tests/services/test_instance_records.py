"""The consumer instances in the registry."""

import msgspec
from twisted.trial.unittest import SynchronousTestCase

from psubd.errors import InstanceExists, InstanceMissing, TooManyGroups
from psubd.interfaces import Delete, Entry, Plan, Put
from psubd.model import Instances, InstanceSpec, TopicPartition, Wish
from psubd.registry.tree import Tree
from psubd.services import instance_records as records

SPEC = InstanceSpec(2)


class RecordTests(SynchronousTestCase):
    def setUp(self) -> None:
        self.tree = Tree()

    def make(self, change) -> Plan:
        """The change is made."""
        serial = self.tree.serial + 1
        plan = change(self.tree, serial)
        for write in plan.writes:
            if isinstance(write, Put):
                self.tree.put(write.path, Entry(write.data, 1, serial))
            else:
                assert isinstance(write, Delete)
                self.tree.drop(write.path)
        self.tree.serial = serial
        return plan

    def items(self, name="shop.g"):
        return records.instances_of(self.tree, name).items

    def test_made_and_left(self) -> None:
        """An instance is there from the change that made it, with its serial and time; the last one that leaves takes the path along."""
        plan = self.make(records.enlist("shop.g", "a", SPEC, 77))
        self.assertEqual(plan.what, "instance.created shop.g a")
        self.assertEqual(self.items(), {"a": msgspec.structs.replace(SPEC, serial=1, created_ms=77)})
        self.make(records.enlist("shop.g", "b", SPEC, 78))
        self.make(records.dismiss("shop.g", "a", 1))
        self.assertEqual(list(self.items()), ["b"])
        self.make(records.dismiss("shop.g", "b", 2))
        self.assertIsNone(self.tree.get("/instances/shop.g"))

    def test_one_id_once(self) -> None:
        """A second one of that id in the group is refused; in another group it is another one."""
        self.make(records.enlist("shop.g", "a", SPEC, 0))
        self.assertRaises(InstanceExists, records.enlist("shop.g", "a", SPEC, 0), self.tree, 2)
        self.make(records.enlist("shop.h", "a", SPEC, 0))

    def test_another_one(self) -> None:
        """One that was made again under the same id is another: changes of the former one are refused."""
        self.make(records.enlist("shop.g", "a", SPEC, 0))
        self.make(records.dismiss("shop.g", "a", 1))
        self.make(records.enlist("shop.g", "a", SPEC, 0))
        for change in (records.dismiss("shop.g", "a", 1), records.wish("shop.g", "a", 1, Wish()), records.dismiss("shop.g", "b", 3)):
            self.assertRaises(InstanceMissing, change, self.tree, 4)

    def test_who_wished_last_is_last(self) -> None:
        """Of two that assign the same partition by hand the later one has it, at every node: their order says so, in the
        registry too."""
        for id in "abc":
            self.make(records.enlist("shop.g", id, SPEC, 0))
        wished = Wish(partitions=(TopicPartition("orders", 1),))
        self.make(records.wish("shop.g", "a", 1, wished))
        self.assertEqual(list(self.items()), ["b", "c", "a"])
        self.assertEqual(self.items()["a"].wish, wished)
        self.assertEqual(self.items()["a"].serial, 1)

    def test_at_most(self) -> None:
        """An application has so many over all its groups, and another one is not counted."""
        full = Instances({str(number): SPEC for number in range(records.MOST - 1)})
        self.tree.put("/instances/shop.g", Entry(msgspec.json.encode(full), 1, 1))
        self.make(records.enlist("other.g", "a", SPEC, 0))
        self.make(records.enlist("shop", "a", SPEC, 0))
        self.assertRaises(TooManyGroups, records.enlist("shop.h", "a", SPEC, 0), self.tree, 9)
        self.make(records.enlist("shop-2.g", "a", SPEC, 0))

    def test_gone_with_its_group(self) -> None:
        """Who takes a group away takes its instances along, if it has any."""
        self.assertEqual(records.gone_with(self.tree, "shop.g"), ())
        self.make(records.enlist("shop.g", "a", SPEC, 0))
        self.assertEqual(records.gone_with(self.tree, "shop.g"), (Delete("/instances/shop.g"),))
