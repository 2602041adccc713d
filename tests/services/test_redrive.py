"""Redrive: sealed letters go back to their origin, each once, for their group only; the others are left and told."""

import msgspec
from prometheus_client import CollectorRegistry
from twisted.internet.defer import succeed
from twisted.trial.unittest import SynchronousTestCase

from psubd.access.gate import Gate
from psubd.errors import NotFound, RegistryUnavailable, StorageTimeout, StorageUnavailable, TopicMissing
from psubd.interfaces import Delete, Plan, Put
from psubd.model import Binding, Group, GroupTopic, Message, Record, TopicSpec
from psubd.services import redrive
from psubd.services.letters import Origin, letter
from psubd.services.partitioner import partition_of
from psubd.services.publisher import Publisher
from psubd.services.redrive import Redriver
from psubd.services.redrive_records import Passed, redrives_of
from psubd.services.registrar import Registrar
from psubd.services.signet import Signet
from psubd.storage.memory import MemoryStorage
from psubd.testing.clock import FakeClock
from psubd.testing.faulty_storage import FaultyStorage
from psubd.testing.registry import MemoryRegistry
from tests.services.house import SubscriberTestCase


class RedriveTestCase(SynchronousTestCase):
    """Application ``shop`` reads ``orders`` (3 partitions) and ``bills``, whose dead letters lie in ``dead`` (2 partitions)."""

    def setUp(self):
        self.clock = FakeClock()
        self.storage = FaultyStorage(MemoryStorage(self.clock))
        self.registry = MemoryRegistry(self.clock)
        self.gate = Gate(self.registry, self.clock)
        self.wait(self.storage.start())
        self.wait(self.registry.start())
        self.gate.start()
        self.signet = Signet(self.registry)
        self.wait(self.signet.open())
        self.registrar = Registrar(self.registry, self.storage, self.clock, 1 << 20)
        for application in ("owner", "shop", "mailer"):
            self.wait(self.registrar.create_application(application, application, "test"))
        for topic, partitions in (("orders", 3), ("bills", 1), ("dead", 2)):
            self.create(topic, partitions)
        for application in ("shop", "mailer"):
            self.bind(application, "orders")
        self.bind("shop", "bills")
        self.join("shop.a", "orders")
        self.metrics = CollectorRegistry()
        self.redriver = self.make_redriver()

    def tearDown(self):
        self.gate.stop()

    def make_redriver(self, metrics=None):
        publisher = Publisher(self.storage, self.clock)
        return Redriver(self.storage, self.registry, self.gate, publisher, self.clock, metrics or self.metrics)

    def wait(self, deferred):
        return self.successResultOf(deferred)

    def create(self, topic, partitions, **more):
        self.wait(self.registrar.create_topic(TopicSpec(topic, partitions, **more), "owner", None, True, "test"))

    def bind(self, application, topic, dead_letter="dead", **settings):
        settings = {"sub": True, "start": "earliest", "max_attempts": 3 if dead_letter else None, **settings}
        self.wait(self.registrar.put_binding(Binding(application, topic, 0, dead_letter=dead_letter, **settings), "test", None))

    def change(self, *writes):
        self.wait(self.registry.change("test", lambda snapshot, serial: Plan("test", writes)))

    def group(self, name):
        entry = self.registry.snapshot().get(f"/groups/{name}")
        return None if entry is None else msgspec.json.decode(entry.data, type=Group)

    def join(self, name, topic):
        """A named group of the application stands on the topic as its own group does."""
        application = name.partition(".")[0]
        group = Group(name, application, 1, 0, {topic: self.group(application).topics[topic]})
        self.change(Put(f"/groups/{name}", msgspec.json.encode(group)))

    def die(self, group="shop", topic="orders", partition=0, offset=0, key=b"k", value=b"v", headers=(), where="dead", lies=None):
        """A letter, as it is stored where a message died."""
        message = Message(offset, 5, key, value, headers)
        origin = Origin(topic, partition, offset, 5, group, 3, "nack", self.clock.epoch_ms())
        record = letter(message, origin, self.storage.known(where), self.signet)
        self.store(record if lies is None else msgspec.structs.replace(record, partition=lies))
        return record

    def store(self, *records):
        self.wait(self.storage.beneath.publish(records, "all"))

    def redrive(self, group="shop", topic="dead", limit=1000):
        return self.wait(self.redriver.redrive(group, topic, limit, "alice"))

    def lying(self, topic="orders"):
        """(partition, message) of all that lies in the topic."""
        bounds = self.wait(self.storage.beneath.bounds(topic))
        return [(at, each) for at in bounds for each in self.wait(self.storage.beneath.read(topic, at, 0, 100_000, 1 << 30)).messages]

    def values(self, topic="orders"):
        return sorted(message.value for _, message in self.lying(topic))

    def why(self, redriven):
        return [left.why for left in redriven.left]


class MoveTests(RedriveTestCase):
    def test_back_to_the_origin(self):
        """A letter is published to its origin: value, key and own headers as they were, psubd's gone but for whom it is; the timestamp is now's."""
        self.die(key=b"k", value=b"v", headers=(("a", b"1"), ("a", None)))
        self.clock.advance(5000)
        self.assertEqual(self.redrive().moved, 1)
        ((partition, message),) = self.lying()
        self.assertEqual((message.key, message.value), (b"k", b"v"))
        self.assertEqual(message.headers, (("a", b"1"), ("a", None), ("psubd.redrive-group", b"shop")))
        self.assertEqual((partition, message.timestamp), (partition_of(b"k", 3), self.clock.epoch_ms()))

    def test_without_key(self):
        """A message without key goes to the partition that it came from; where that is no more, to any."""
        self.die(key=None, partition=2)
        self.die(key=None, partition=7)
        self.assertEqual(self.redrive().moved, 2)
        found = [partition for partition, _ in self.lying()]
        self.assertEqual((len(found), 2 in found), (2, True))

    def test_null_stays_null(self):
        """A tombstone comes back as one."""
        self.die(value=None)
        self.redrive()
        self.assertIsNone(self.lying()[0][1].value)

    def test_each_once(self):
        """What was moved is not moved again: by the next call, after a restart, by another node."""
        for offset in range(5):
            self.die(offset=offset, value=b"%d" % offset, lies=offset % 2)
        self.assertEqual(self.redrive().moved, 5)
        self.assertEqual(self.redrive(), redrive.Redriven(0))
        self.redriver = self.make_redriver(CollectorRegistry())
        self.assertEqual(self.redrive(), redrive.Redriven(0))
        self.die(offset=9, value=b"9")
        self.assertEqual(self.redrive().moved, 1)
        self.assertEqual(self.values(), [b"0", b"1", b"2", b"3", b"4", b"9"])

    def test_limit(self):
        """Not more than ``limit`` are moved; the next call moves the next ones."""
        for offset in range(7):
            self.die(offset=offset, value=b"%d" % offset, lies=offset % 2)
        self.assertEqual(self.redrive(limit=0), redrive.Redriven(0))
        self.assertEqual([self.redrive(limit=3).moved for _ in range(4)], [3, 3, 1, 0])
        self.assertEqual(self.values(), [b"%d" % offset for offset in range(7)])

    def test_many(self):
        """More than a portion, of several origins: each to its own, in the order of the dead-letter topic."""
        for offset in range(350):
            self.die(topic=("orders", "bills")[offset % 2], offset=offset, value=b"%03d" % offset)
        self.assertEqual(self.redrive().moved, 350)
        self.assertEqual([message.value for _, message in self.lying("bills")], [b"%03d" % offset for offset in range(1, 350, 2)])
        self.assertEqual([message.value for _, message in self.lying("orders")], [b"%03d" % offset for offset in range(0, 350, 2)])

    def test_groups_are_apart(self):
        """Each group moves its own letters, whatever another one did with the topic."""
        self.die("shop", value=b"own")
        self.die("shop.a", value=b"named")
        self.die("mailer", value=b"other")
        self.assertEqual((self.redrive("shop").moved, self.values()), (1, [b"own"]))
        self.assertEqual((self.redrive("mailer").moved, self.values()), (1, [b"other", b"own"]))
        self.assertEqual((self.redrive("shop.a").moved, self.values()), (1, [b"named", b"other", b"own"]))
        self.assertEqual([dict(each.headers)["psubd.redrive-group"] for _, each in self.lying()], [b"shop", b"mailer", b"shop.a"])

    def test_dies_again(self):
        """A message that is dead once more is a new letter, and may be moved again."""
        self.die(value=b"v")
        self.redrive()
        ((partition, message),) = self.lying()
        self.die(partition=partition, offset=message.offset, headers=message.headers)
        self.assertEqual(self.redrive().moved, 1)
        self.assertEqual([name for name, _ in self.lying()[1][1].headers], ["psubd.redrive-group"])

    def test_audit_and_metrics(self):
        """The audit says who moved how many; the metrics count, also what was left."""
        for offset in range(3):
            self.die(offset=offset)
        self.store(Record("dead", b"x", b"x", (), 0, 1))
        self.redrive()
        told = [(change.actor, change.what, change.paths) for change in self.registry.history(0) if change.what.startswith("group.redriven")]
        self.assertEqual(told[0], ("alice", "group.redriven shop dead 3", ("/redrives/shop",)))
        self.assertEqual(self.metrics.get_sample_value("psubd_redriven_messages_total"), 3)
        self.assertEqual(self.metrics.get_sample_value("psubd_redrive_left_total"), 1)


class LeaveTests(RedriveTestCase):
    def left(self, again):
        """What one redrive leaves, which moves nothing; ``again``: the next one tells it again."""
        redriven = self.redrive()
        self.assertEqual((redriven.moved, self.lying("orders"), self.lying("bills")), (0, [], []))
        self.assertEqual(self.redrive(), redriven if again else redrive.Redriven(0))
        return redriven

    def test_never(self):
        """What is no letter of this group's can never be moved: told once, then passed over."""
        written = self.die()
        headers = dict(written.headers)
        self.store(
            Record("dead", b"forged", b"k", written.headers, 0, 1),
            Record("dead", b"v", b"k", (*written.headers, ("more", b"1")), 0, 1),
            Record("dead", b"v", b"k", tuple(each for each in written.headers if each[0] != "psubd.seal"), 0, 1),
            Record("dead", b"v", b"k", tuple({**headers, "psubd.group": b"mailer"}.items()), 0, 1),
            Record("dead", b"plain", None, (), 0, 1),
        )
        self.die(group="mailer")
        self.die(group="shop.a")
        redriven = self.redrive()
        self.assertEqual((redriven.moved, self.values()), (1, [b"v"]))
        self.assertEqual(
            sorted(set(self.why(redriven))),
            ["it is a letter of group mailer", "it is a letter of group shop.a", "it is not sealed by psubd, or was altered"],
        )
        self.assertEqual(len(redriven.left), 7)
        self.assertEqual(self.redrive(), redrive.Redriven(0))

    def test_another_signet(self):
        """A letter that another psubd sealed is none here."""
        other = MemoryRegistry(self.clock)
        self.wait(other.start())
        own, self.signet = self.signet, Signet(other)
        self.wait(self.signet.open())
        self.die()
        self.signet = own
        self.assertEqual(self.why(self.left(again=False)), ["it is not sealed by psubd, or was altered"])

    def test_a_former_application(self):
        """An application that was made again under the same id does not get the letters of the former one."""
        self.die()
        self.clock.advance(10)
        self.wait(self.registrar.delete_application("shop", True, "test", None))
        self.wait(self.registrar.create_application("shop", "shop", "test"))
        self.bind("shop", "orders")
        self.assertEqual(self.why(self.left(again=False)), ["it is a letter of a former application of that id"])

    def test_no_binding(self):
        """Where the application is not bound to the origin, or for pub only, the letter waits until it is."""
        self.die()
        self.wait(self.registrar.delete_binding("shop", "orders", "test", None))
        self.assertIn("is not bound to its origin, topic orders", self.left(again=True).left[0].why)
        self.bind("shop", "orders", sub=False, pub=True)
        self.left(again=True)
        self.bind("shop", "orders")
        self.assertEqual((self.redrive().moved, self.values()), (1, [b"v"]))

    def test_another_dead_letter_topic(self):
        """Only the topic that the origin's binding names now is redriven to that origin."""
        self.create("others", 1)
        self.die()
        for other in ("others", None):
            self.bind("shop", "orders", dead_letter=other)
            self.assertIn(f"names {other or 'no topic'} as its dead-letter topic", self.left(again=True).left[0].why)
        self.bind("shop", "orders")
        self.assertEqual(self.redrive().moved, 1)

    def test_no_origin(self):
        """A letter whose origin is not registered waits until it is again."""
        self.die()
        self.wait(self.registrar.delete_topic("orders", True, True, "test", None))
        self.assertEqual([left.why for left in self.redrive().left], ["its origin, topic orders, is not registered"])
        self.create("orders", 3)
        self.bind("shop", "orders")
        self.assertEqual((self.redrive().moved, self.values()), (1, [b"v"]))

    def test_origin_gone_from_the_storage(self):
        """A registered origin whose log is gone is left, and told so."""
        self.die()
        self.wait(self.storage.delete_topic("orders"))
        redriven = self.redrive()
        self.assertEqual((redriven.moved, len(redriven.left)), (0, 1))
        self.assertIn("gone from the storage", redriven.left[0].why)

    def test_the_group_does_not_stand_there(self):
        """Where the group has no place on the origin now, the letter waits: it might begin behind it and never see it."""
        self.die(group="shop.a", topic="bills")
        self.assertIn("has no place on its origin", self.redrive("shop.a").left[0].why)
        self.change(Put("/groups/shop.a", msgspec.json.encode(Group("shop.a", "shop", 1, 0, {"bills": GroupTopic("u", "of another binding")}))))
        self.assertIn("has no place on its origin", self.redrive("shop.a").left[0].why)
        self.join("shop.a", "bills")
        self.assertEqual(self.redrive("shop.a").moved, 1)

    def test_what_the_origin_refuses(self):
        """What the origin does not take, for its size or for want of a key, is left; its neighbours move."""
        self.wait(self.storage.create_topic(TopicSpec("small", 1, max_message_bytes=600)))
        self.create("small", 1)
        self.create("keyed", 1, cleanup="compact")
        self.bind("shop", "small")
        self.bind("shop", "keyed")
        self.die(topic="small", value=b"x" * 1000)
        self.die(topic="keyed", key=None)
        self.die(topic="small", value=b"fits")
        redriven = self.redrive()
        self.assertEqual((redriven.moved, self.values("small"), len(redriven.left)), (1, [b"fits"], 2))
        self.assertIn("limit of its own of 600", "".join(self.why(redriven)))
        self.assertIn("compacted", "".join(self.why(redriven)))
        self.assertEqual(self.redrive(), redrive.Redriven(0, redriven.left))

    def test_holes(self):
        """What is left in the middle keeps nothing behind it from being moved once, and is moved itself when it may be."""
        self.bind("shop", "bills", dead_letter=None)
        for offset in range(60):
            self.die(topic=("orders", "bills")[offset % 3 == 1], offset=offset, value=b"%02d" % offset, lies=offset % 2)
        self.assertEqual((self.redrive().moved, len(self.redrive().left)), (40, 20))
        self.bind("shop", "bills")
        self.assertEqual(self.redrive(limit=7).moved, 7)
        self.assertEqual((self.redrive().moved, self.redrive()), (13, redrive.Redriven(0)))
        self.assertEqual(sorted(self.values("bills") + self.values()), [b"%02d" % offset for offset in range(60)])
        passed = redrives_of(self.registry.snapshot(), "shop").topics["dead"].partitions
        self.assertEqual(passed, {0: Passed(30), 1: Passed(30)})

    def test_very_many_left(self):
        """An answer tells a thousand letters, then how many more; what is left at the front hides nothing behind it for ever."""
        self.patch(redrive, "SCANNED", 1500)
        self.bind("shop", "bills", dead_letter=None)
        for offset in range(3200):
            self.die(topic="bills", offset=offset, lies=0)
        self.die(value=b"behind", lies=0)
        redriven = self.redrive()
        self.assertEqual((redriven.moved, len(redriven.left)), (0, 1002))
        self.assertIn("500 more are left", redriven.left[-2].why)
        self.assertIn("ask again", redriven.left[-1].why)
        self.assertEqual((redriven.left[-1].partition, redriven.left[-1].offset), (0, 1500))
        self.assertEqual([self.redrive().moved for _ in range(3)], [0, 1, 0])
        self.assertEqual(self.values(), [b"behind"])

    def test_takes_no_longer(self):
        """A call ends after some time, says so, and the next one goes on there."""
        for offset in range(500):
            self.die(offset=offset, value=b"%03d" % offset, lies=0)
        publish = self.storage.beneath.publish
        self.patch(self.storage.beneath, "publish", lambda records, acks: [self.clock.advance(20_000), publish(records, acks)][1])
        first = self.redrive()
        self.assertEqual(first.moved, 200)
        self.assertEqual([(left.offset, "ask again" in left.why) for left in first.left], [(200, True)])
        self.assertEqual([self.redrive().moved for _ in range(3)], [200, 100, 0])
        self.assertEqual(self.values(), [b"%03d" % offset for offset in range(500)])

    def test_the_registry_is_full(self):
        """Where too many letters are left one by one, the call stops there and says so, rather than moving what it could not note."""
        self.patch(redrive, "MAX_RANGES", 60)
        self.bind("shop", "bills", dead_letter=None)
        for offset in range(400):
            self.die(topic=("orders", "bills")[offset % 2], offset=offset, value=b"%03d" % offset, lies=0)
        redriven = self.redrive()
        moved = redriven.moved
        self.assertTrue(0 < moved < 200, moved)
        self.assertIn("cannot note", redriven.left[-1].why)
        self.assertEqual((self.redrive().moved, len(self.values())), (0, moved))
        self.bind("shop", "bills")
        moved = [self.redrive().moved for _ in range(4)]
        self.assertEqual((len(self.values()), len(self.values("bills")), moved[-1]), (200, 200, 0))


class TopicTests(RedriveTestCase):
    def test_no_group(self):
        """A group that is not registered: NotFound."""
        self.failureResultOf(self.redriver.redrive("shop.none", "dead", 10, "alice"), NotFound)

    def test_no_topic(self):
        """A topic that is not registered is NotFound; one that is gone from the storage TopicMissing."""
        self.failureResultOf(self.redriver.redrive("shop", "none", 10, "alice"), NotFound)
        self.wait(self.storage.delete_topic("dead"))
        self.failureResultOf(self.redriver.redrive("shop", "dead", 10, "alice"), TopicMissing)

    def test_made_again(self):
        """A dead-letter topic that was made again begins at its first letter."""
        for offset in range(5):
            self.die(offset=offset, lies=0)
        self.redrive()
        self.wait(self.registrar.delete_topic("dead", True, True, "test", None))
        self.create("dead", 1)
        for topic in ("orders", "bills"):
            self.bind("shop", topic)
        for offset in range(6):
            self.die(offset=offset, value=b"new")
        self.assertEqual((self.redrive().moved, self.values().count(b"new")), (6, 6))

    def test_grown(self):
        """Partitions that were added are looked at too."""
        self.die()
        self.redrive()
        self.wait(self.registrar.alter_topic("dead", {"partitions": 5}, "test", None))
        self.die(value=b"new", lies=4)
        self.assertEqual(self.redrive().moved, 1)

    def test_retention(self):
        """Letters that retention took are passed; what is left of them in the registry goes."""
        self.bind("shop", "bills", dead_letter=None)
        for offset in range(6):
            self.die(topic=("orders", "bills")[offset % 2], offset=offset, lies=0)
        self.redrive()
        log = self.storage.beneath._shelves["dead"].logs[0]
        log.first = 4
        del log.messages[:4]
        self.die(value=b"new", lies=0)
        self.assertEqual(self.redrive().moved, 1)
        passed = redrives_of(self.registry.snapshot(), "shop").topics["dead"].partitions[0]
        self.assertEqual((passed.offset, passed.beyond), (5, ((6, 7),)))

    def test_cut(self):
        """A log that was cut below what was passed is gone through again: twice rather than never."""
        for offset in range(6):
            self.die(offset=offset, lies=0)
        self.redrive()
        self.storage.beneath._shelves["dead"].logs[0].truncate(2)
        self.die(value=b"new", lies=0)
        self.assertEqual(self.redrive().moved, 3)
        self.assertEqual(self.values().count(b"new"), 1)


class FailureTests(RedriveTestCase):
    def setUp(self):
        super().setUp()
        for offset in range(250):
            self.die(offset=offset, value=b"%03d" % offset, lies=0)

    def fail_at(self, publish_number, error):
        """The storage fails at that call of `publish`, and at no other."""
        publish, calls = self.storage.beneath.publish, []

        def failing(records, acks):
            calls.append(1)
            if len(calls) == publish_number:
                raise error
            return publish(records, acks)

        self.patch(self.storage.beneath, "publish", failing)

    def test_the_storage_fails(self):
        """A failure is told; what was moved before stays moved, and nothing else is lost."""
        for error in (StorageUnavailable("away"), StorageTimeout("may be")):
            self.storage.failing["publish orders"] = error
            self.failureResultOf(self.redriver.redrive("shop", "dead", 100, "alice"), type(error))
            self.storage.failing.clear()
        self.assertEqual(self.redrive(limit=100).moved, 100)
        self.storage.failing["read dead"] = StorageUnavailable("away")
        self.failureResultOf(self.redriver.redrive("shop", "dead", 100, "alice"), StorageUnavailable)
        self.storage.failing.clear()
        self.assertEqual(self.redrive().moved, 150)
        self.assertEqual(self.values(), [b"%03d" % offset for offset in range(250)])

    def test_one_record_fails(self):
        """A letter that the storage refuses is left and told; its neighbours are moved, and it is with the next call."""
        publish = self.storage.beneath.publish

        def spoilt(records, acks):
            results = self.wait(publish([each for each in records if each.value != b"007"], acks))
            places = iter(results)
            return succeed([StorageUnavailable("not now") if each.value == b"007" else next(places) for each in records])

        self.patch(self.storage.beneath, "publish", spoilt)
        redriven = self.redrive()
        self.assertEqual((redriven.moved, [(left.offset, left.why) for left in redriven.left]), (249, [(7, "not now")]))
        self.storage.beneath.publish = publish
        self.assertEqual((self.redrive().moved, self.values()), (1, [b"%03d" % offset for offset in range(250)]))

    def test_crash_before_the_registry(self):
        """Where the node ends between publishing and the registry, that portion is moved again, at most; nothing is lost."""
        self.registry.refuse = RegistryUnavailable("away")
        self.failureResultOf(self.redriver.redrive("shop", "dead", 1000, "alice"), RegistryUnavailable)
        self.registry.refuse = None
        self.assertEqual(len(self.values()), redrive.PORTION_RECORDS)
        self.redriver = self.make_redriver(CollectorRegistry())
        self.assertEqual(self.redrive().moved, 250)
        self.assertEqual((len(self.values()), len(set(self.values()))), (350, 250))

    def test_one_after_another(self):
        """Two redrives of a group at once move each letter once; another group does not wait."""
        self.die(group="mailer", value=b"mail")
        self.storage.held.add("publish")
        both = [self.redriver.redrive("shop", "dead", 1000, who) for who in ("alice", "bob")]
        other = self.redriver.redrive("mailer", "dead", 1000, "carol")
        self.storage.release("publish")
        self.assertEqual([self.wait(each).moved for each in both], [250, 0])
        self.assertEqual(self.wait(other).moved, 1)
        self.assertEqual(len(self.values()), 251)

    def test_another_node(self):
        """Where another node redrives the same group meanwhile, one of the two stops and says so; no place is overwritten."""
        beside = MemoryRegistry(self.clock, beside=self.registry)
        self.wait(beside.start())
        publisher = Publisher(self.storage, self.clock)
        node = Redriver(self.storage, beside, self.gate, publisher, self.clock)
        self.storage.held.add("publish")
        both = [self.redriver.redrive("shop", "dead", 1000, "alice"), node.redrive("shop", "dead", 1000, "bob")]
        self.storage.release("publish")
        self.assertEqual(self.wait(both[0]).moved, 250)
        self.assertIn("another node", self.failureResultOf(both[1], RegistryUnavailable).value.detail)
        self.assertEqual((set(self.values()), self.redrive().moved), ({b"%03d" % offset for offset in range(250)}, 0))

    def test_cancelled(self):
        """Who waits no longer stops nothing half way."""
        self.storage.held.add("publish")
        asked = self.redriver.redrive("shop", "dead", 1000, "alice")
        asked.cancel()
        self.failureResultOf(asked)
        self.storage.release("publish")
        self.assertEqual((len(self.values()), self.redrive().moved), (250, 0))

    def test_the_group_is_deleted_meanwhile(self):
        """A group that is deleted while its letters are moved leaves nothing in the registry."""
        self.storage.held.add("publish")
        asked = self.redriver.redrive("shop.a", "dead", 1000, "alice")
        self.wait(asked)
        asked = self.redriver.redrive("shop", "dead", 1000, "alice")
        self.change(Delete("/groups/shop"))
        self.storage.release("publish")
        self.failureResultOf(asked, NotFound)
        self.assertIsNone(self.registry.snapshot().get("/redrives/shop"))

    def test_goes_with_the_application(self):
        """What was redriven is forgotten with the application's groups."""
        self.redrive(limit=10)
        self.redrive("shop.a", limit=10)
        self.assertEqual(list(self.registry.snapshot().children("/redrives")), ["shop", "shop.a"])
        self.wait(self.registrar.delete_application("shop", True, "test", None))
        self.assertEqual(list(self.registry.snapshot().children("/redrives")), [])


class DeletedGroupTests(SubscriberTestCase):
    def test_goes_with_the_group(self):
        """What was redriven is forgotten with a group that is deleted; what others have stays."""
        self.take(group="shop.a")
        self.take()
        for name in ("shop", "shop.a"):
            self.wait(self.registry.change("test", lambda snapshot, serial, path=f"/redrives/{name}": Plan("test", (Put(path, b"{}"),))))
        self.wait(self.subscriber.forget_group("shop.a", "test"))
        self.assertEqual(list(self.registry.snapshot().children("/redrives")), ["shop"])
