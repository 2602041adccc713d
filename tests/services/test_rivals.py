"""Two psubds, each with a registry of its own, on the same storage: they notice each other, and stop rather than fight."""

from psubd.access.gate import Gate
from psubd.errors import OwnershipInDoubt, StorageTimeout
from psubd.model import Commit, StorageLimits, TopicPartition
from psubd.services.registrar import Registrar
from psubd.services.rivals import EVERY_MS, STILL_MS
from psubd.services.subscriber import Subscriber
from psubd.testing.faulty_storage import FaultyStorage
from psubd.testing.registry import MemoryRegistry
from tests.services.house import SubscriberTestCase


class Side:
    """What makes one psubd in the house's tests."""

    NAMES = ("storage", "registry", "gate", "registrar", "keys", "subscriber")

    def __init__(self, test):
        self.values = {name: getattr(test, name) for name in self.NAMES}
        self.told = []
        self.values["subscriber"].listen(self.told.append)


class RivalCase(SubscriberTestCase):
    """``one`` and ``other`` know the same application and topic."""

    def setUp(self):
        super().setUp()
        self.storage.limits = StorageLimits(places_expire=True)
        self.one = Side(self)
        self.other = self.make_other()
        self.on(self.one)

    def make_other(self):
        self.storage = FaultyStorage(self.storage.beneath)
        self.storage.limits = StorageLimits(places_expire=True)
        self.registry = MemoryRegistry(self.clock)
        self.gate = Gate(self.registry, self.clock)
        self.wait(self.registry.start())
        self.gate.start()
        self.registrar = Registrar(self.registry, self.storage, self.clock, 1 << 20)
        self.keys = {}
        self.create_application("shop")
        self.create_application("owner")
        self.create_topic("orders", 3)
        self.registry.epoch = self.one.values["registry"].epoch
        self.subscriber = Subscriber(self.storage, self.registry, self.gate, self.registry, self.clock, 500, patience_ms=0)
        self.wait(self.subscriber.start())
        return Side(self)

    def on(self, side):
        for name, value in side.values.items():
            setattr(self, name, value)

    def restart(self):
        super().restart()
        self.one.values["subscriber"] = self.subscriber

    def tearDown(self):
        for side in (self.other, self.one):
            self.on(side)
            self.storage.failing.clear()
            if side is self.other:
                self.wait(self.subscriber.stop())
                self.gate.stop()
        super().tearDown()

    def read(self, side):
        """One message is published, read there, and committed; whether it was given."""
        self.on(side)
        self.publish()
        polled = self.poll(timeout=0)
        given = []
        polled.addCallbacks(lambda delivery: (delivery.settle(1), given.append(delivery)), lambda failure: failure.trap(OwnershipInDoubt))
        self.clock.advance(500)
        return bool(given)

    def begin_there(self):
        """The other one is bound to the topic, so that it has the application's own group too."""
        self.on(self.other)
        self.bind("shop", "orders")


class RivalTests(RivalCase):
    def test_noticed(self):
        """Of two that commit the same group one stops within seconds: its polls are 503, and the operator is told; the other one goes on."""
        self.assertTrue(self.read(self.one))
        self.begin_there()
        self.assertTrue(self.read(self.other))
        for _ in range(2 * EVERY_MS // 1000):
            self.read(self.one)
            self.read(self.other)
        serving = [side for side in (self.one, self.other) if self.read(side)]
        self.assertEqual(len(serving), 1)
        [stopped] = {self.one, self.other} - set(serving)
        self.on(stopped)
        refused = self.failureResultOf(self.poll(), OwnershipInDoubt).value
        self.assertIn("another psubd", refused.detail)
        self.assertEqual([line.split()[0] for line in stopped.told], ["group.contested"])
        self.assertEqual(serving[0].told, [])

    def test_nothing_is_fought_over(self):
        """While the other one commits, the one that stopped writes nothing, however long that goes on."""
        self.test_noticed()
        [stopped] = [side for side in (self.one, self.other) if side.told]
        [serving] = {self.one, self.other} - {stopped}
        before = stopped.values["storage"].calls["commit"]
        for _ in range(4 * STILL_MS // 1000):
            self.assertTrue(self.read(serving))
            self.clock.advance(500)
        self.assertEqual(stopped.values["storage"].calls["commit"], before)
        self.assertEqual(len(stopped.told), 1)

    def test_the_other_one_ends(self):
        """Once the other one's places stand still the one that stopped goes on by itself, as its ledgers stand."""
        self.test_noticed()
        [stopped] = [side for side in (self.one, self.other) if side.told]
        for _ in range(2 * STILL_MS // 1000):
            self.clock.advance(1000)
        self.assertEqual([line.split()[0] for line in stopped.told], ["group.contested", "group.regained"])
        self.assertTrue(self.read(stopped))

    def test_taken_on_purpose(self):
        """A reset takes the group from the other one at once, which stops then."""
        self.test_noticed()
        [stopped] = [side for side in (self.one, self.other) if side.told]
        [serving] = {self.one, self.other} - {stopped}
        self.on(stopped)
        self.wait(self.subscriber.reset("shop", "orders", None, "latest", False, "test"))
        self.assertTrue(self.read(stopped))
        for _ in range(2 * EVERY_MS // 1000):
            self.read(stopped)
            self.read(serving)
        self.assertEqual([line.split()[0] for line in serving.told], ["group.contested"])

    def test_one_alone(self):
        """A node that is the only one never takes its own commits for another's: after failures whose outcome was not known, resets, restarts."""
        self.publish(count=20)
        for step in range(6):
            self.take(1)
            self.storage.failing["commit"] = StorageTimeout("it may be kept")
            self.clock.advance(500)
            self.storage.failing.clear()
            self.clock.advance(EVERY_MS)
            if step % 2:
                self.wait(self.subscriber.reset("shop", "orders", [0], {0: step}, False, "test"))
            self.clock.advance(EVERY_MS)
        self.restart()
        for _ in range(3):
            self.take(1)
            self.clock.advance(EVERY_MS)
        self.assertEqual(self.one.told, [])

    def test_a_commit_of_before_a_restart(self):
        """One that the node's former self left on its way is overwritten; a second one is somebody else's who has the same registry's copy."""
        told = []
        self.publish(count=9)
        self.take(2)
        self.clock.advance(500)
        former = self.wait(self.storage.committed("shop"))
        self.restart()
        self.subscriber.listen(told.append)
        self.take(2)
        self.clock.advance(500)
        self.wait(self.storage.commit("shop", former))
        self.clock.advance(EVERY_MS)
        self.take(1)
        self.clock.advance(500)
        self.assertEqual((self.committed()["orders", 0], told), (5, []))
        self.wait(self.storage.commit("shop", former))
        self.clock.advance(EVERY_MS)
        self.take(1)
        self.clock.advance(500)
        self.assertEqual([line.split()[0] for line in told], ["group.contested"])

    def test_places_that_no_psubd_wrote(self):
        """Are the storage's to refuse, in its own words: it knows whether somebody is a member."""
        self.publish(count=9)
        self.take(2)
        self.clock.advance(500)
        self.wait(self.storage.beneath.commit("shop", {TopicPartition("orders", 0): Commit(1, "theirs")}))
        self.storage.members.add("shop")
        self.clock.advance(EVERY_MS)
        self.take(1)
        self.clock.advance(500)
        self.assertEqual([line.split()[0] for line in self.one.told], ["group.contested"])
        self.assertIn("has members", self.one.told[0])
        self.storage.members.clear()

    def test_cost(self):
        """A group's places are read back once in five seconds at most, and not at all while it commits nothing."""
        self.publish(count=40)
        self.take(1)
        self.clock.advance(500)
        before = self.storage.calls["committed"]
        for _ in range(10):
            self.take(1)
            self.clock.advance(500)
        self.assertLessEqual(self.storage.calls["committed"] - before, 2)
        before = self.storage.calls["committed"]
        self.clock.advance(10 * EVERY_MS)
        self.assertEqual(self.storage.calls["committed"], before)

    def test_a_storage_of_its_own(self):
        """Where nobody else can write places nobody looks."""
        self.storage.limits = StorageLimits()
        self.publish(count=20)
        self.take(1)
        before = self.storage.calls["committed"]
        for _ in range(4):
            self.clock.advance(EVERY_MS)
            self.take(1)
        self.assertEqual(self.storage.calls["committed"], before)
