"""What every `psubd.interfaces.IConsumers` holds, as far as one node can show it: one suite, run on the subscriber and on the double.

`ConsumersContract` is of instances alone; `ClockedConsumersContract` needs a clock that the test turns; `SharingContract` needs the sub endpoint's
side, `psubd.interfaces.ISubscriber`, of the same groups. The host class mixes them into a test case. Topics and groups have names of their own in
every test.
"""

from collections.abc import Callable
from typing import Any, Protocol, TypeVar
from uuid import uuid4

import msgspec
from twisted.internet.defer import CancelledError, Deferred
from zope.interface.verify import verifyObject

from psubd.errors import (
    BadParameter,
    IllegalState,
    InstanceExists,
    InstanceMissing,
    NoPlace,
    OffsetOutOfRange,
    PartitionMissing,
    PsubdError,
    TopicNotBound,
)
from psubd.interfaces import IConsumers, ISubscriber
from psubd.model import Aim, Delivery, Grant, InstanceSpec, Mark, Poll, Standing, TopicPartition, Wish

T = TypeVar("T")

SPEC = InstanceSpec(2, reset="earliest", auto_commit=False)
"""What instances of these tests are, unless they say otherwise."""

AUTO: dict[str, Any] = {"auto_commit": True}


class Host(Protocol):
    """What the host class provides, beside trial's assertions. Its application is `application`; ``other`` is the topic's owner and reads nothing."""

    consumers: IConsumers
    application: str

    def grant(self) -> Grant:
        """Of the application, to subscribe, by the registry of this moment."""

    def topic(self, partitions: int = 1, prefix: str = "topic", bound: bool = True) -> str:
        """A new topic ``<prefix>-<something>``, which the application is bound to for sub from its first message on, or not at all."""

    def bind(self, topic: str, **settings: Any) -> None:
        """Bind the application for sub, from the first message on, or change the binding."""

    def unbind(self, topic: str) -> None:
        """End the binding."""

    def grow(self, topic: str, partitions: int) -> None:
        """Give the topic so many partitions; it is known when this returns."""

    def put(self, topic: str, *values: bytes, partition: int = 0, timestamp: int | None = None) -> list[int]:
        """Publish; the offsets."""

    def wait(self, deferred: "Deferred[T]") -> T:
        """The result, or raise what it failed with."""

    def pending(self, deferred: "Deferred[Any]") -> bool:
        """Whether it has not fired, after the host had time to."""

    def pass_ms(self, ms: int) -> None:
        """Let so much time pass."""


class ConsumerSteps:
    """How the contract speaks of instances: ``g`` is a group of the application's, ``a``, ``b`` and so on are its instances."""

    consumers: IConsumers
    application: str
    grant: Callable[[], Grant]
    topic: Callable[..., str]
    bind: Callable[..., None]
    unbind: Callable[[str], None]
    grow: Callable[[str, int], None]
    put: Callable[..., list[int]]
    wait: Callable[..., Any]
    pending: Callable[["Deferred[Any]"], bool]
    pass_ms: Callable[[int], None]
    assertEqual: Callable[..., None]
    assertTrue: Callable[..., None]
    assertFalse: Callable[..., None]
    assertIn: Callable[..., None]
    assertNotIn: Callable[..., None]
    assertIsNone: Callable[..., None]
    assertGreater: Callable[..., None]
    assertLessEqual: Callable[..., None]
    assertRaises: Callable[..., Any]

    _group: str | None = None

    @property
    def group(self) -> str:
        """The test's group, by its full name."""
        if self._group is None:
            self._group = self.new_group()
        return self._group

    def new_group(self) -> str:
        """A group that nobody had before."""
        return f"{self.application}.g-{uuid4().hex[:12]}"

    # --- what a client does

    def make(self, id: str = "a", *topics: str, group: str | None = None, **settings: Any) -> None:
        """A new instance that is subscribed to the topics, if any."""
        self.wait(self.consumers.enlist(self.grant(), group or self.group, id, msgspec.structs.replace(SPEC, **settings)))
        if topics:
            self.wish(id, group=group, topics=topics)

    def leave(self, id: str = "a") -> None:
        self.wait(self.consumers.dismiss(self.grant(), self.group, id))

    def wish(self, id: str = "a", group: str | None = None, **wish: Any) -> None:
        self.wait(self.consumers.wish(self.grant(), group or self.group, id, Wish(**wish)))

    def assign(self, id: str, *partitions: TopicPartition) -> None:
        self.wish(id, partitions=partitions)

    def look(self, id: str = "a") -> Standing:
        standing: Standing = self.wait(self.consumers.look(self.grant(), self.group, id))
        return standing

    def has(self, id: str = "a") -> set[int]:
        """The numbers of the partitions that it has now."""
        return {at.partition for at in self.look(id).partitions}

    def reading(self, id: str = "a", timeout: int = 30_000, group: str | None = None, **ask: Any) -> "Deferred[Delivery]":
        """A read that may wait."""
        name = group or self.group
        settings = {"batch_size": 10_000, **ask}
        return self.consumers.read(self.grant(), name, id, Poll(name, timeout_ms=timeout, instance=id, **settings))

    def given(self, id: str = "a", **ask: Any) -> Delivery:
        """A read that does not wait, not settled."""
        delivery: Delivery = self.wait(self.reading(id, 0, **ask))
        return delivery

    def read(self, id: str = "a", **ask: Any) -> list[bytes | None]:
        """The values that a read gives which does not wait; wholly written."""
        return written(self.given(id, **ask))

    def commit(self, id: str = "a", *marks: Mark) -> list[Mark]:
        """Without marks: what was wholly written."""
        kept: list[Mark] = self.wait(self.consumers.commit(self.grant(), self.group, id, marks or None))
        return kept

    def committed(self, topic: str, partition: int = 0, id: str = "a") -> int:
        """The offset of the group's place there."""
        return self.mark(topic, partition, id).offset

    def mark(self, topic: str, partition: int = 0, id: str = "a") -> Mark:
        (found,) = self.wait(self.consumers.committed(self.grant(), self.group, id, [TopicPartition(topic, partition)]))
        assert isinstance(found, Mark)
        return found

    def seek(self, topic: str, to: Any, partition: int = 0, id: str = "a") -> None:
        self.wait(self.consumers.seek(self.grant(), self.group, id, [Aim(TopicPartition(topic, partition), to)]))

    def refused(self, error: type[PsubdError], call: Callable[..., Any], *args: Any, **settings: Any) -> PsubdError:
        """The refusal that the call ends with; exactly of that class."""
        with self.assertRaises(error) as caught:
            call(*args, **settings)
        assert type(caught.exception) is error, caught.exception
        return caught.exception

    def failed(self, error: type[PsubdError], deferred: "Deferred[Any]") -> PsubdError:
        return self.refused(error, self.wait, deferred)


def values(delivery: Delivery) -> list[bytes | None]:
    return [delivered.message.value for delivered in delivery.messages]


def written(delivery: Delivery) -> list[bytes | None]:
    """Settle it as wholly written; the values."""
    delivery.settle(len(delivery.messages))
    return values(delivery)


def each(*names: str) -> list[bytes]:
    return [name.encode() for name in names]


# --- which there are -------------------------------------------------------------------------------------------------------------


class EnlistingContract(ConsumerSteps):
    def test_provides_the_interface(self) -> None:
        """It has every member of IConsumers, with its parameters."""
        self.assertTrue(verifyObject(IConsumers, self.consumers))

    def test_an_instance_stands_as_it_was_asked_for(self) -> None:
        """look tells the spec, with the node's own time and serial; it reads nothing yet."""
        self.make("a", dialect=1, format="json", reset=None, auto_commit=True, min_bytes=7, timeout_ms=123)
        standing = self.look("a")
        spec = standing.spec
        self.assertEqual((1, "json", None, True), (spec.dialect, spec.format, spec.reset, spec.auto_commit))
        self.assertEqual((7, 123), (spec.min_bytes, spec.timeout_ms))
        self.assertGreater(spec.serial, 0)
        self.assertGreater(spec.created_ms, 0)
        self.assertEqual((Wish(), (), ()), (spec.wish, standing.topics, standing.partitions))

    def test_an_id_is_there_once(self) -> None:
        """A second instance of the id in the group is InstanceExists, and the first stays what it was; another group may have it."""
        self.make("a", format="text")
        self.refused(InstanceExists, self.make, "a", format="json")
        self.assertEqual("text", self.look("a").spec.format)
        self.make("a", group=self.new_group())

    def test_an_instance_may_wish_as_it_is_made(self) -> None:
        """A spec with a wish makes an instance that reads at once."""
        topic = self.topic()
        self.put(topic, b"0")
        self.make("a", wish=Wish(topics=(topic,)))
        self.assertEqual(each("0"), self.read())

    def test_one_that_is_not_there_is_told(self) -> None:
        """Every call but enlist is InstanceMissing for an id that was never made."""
        topic = self.topic()
        self.make("other", topic)
        at = TopicPartition(topic, 0)
        for call in (
            lambda: self.leave("a"),
            lambda: self.wish("a", topics=(topic,)),
            lambda: self.look("a"),
            lambda: self.given("a"),
            lambda: self.commit("a"),
            lambda: self.commit("a", Mark(at, 0)),
            lambda: self.committed(topic),
            lambda: self.seek(topic, 0),
        ):
            self.refused(InstanceMissing, call)

    def test_one_that_left_is_not_there(self) -> None:
        """After dismiss it is InstanceMissing, a read of it that waits too; the id may be made again and is another instance."""
        topic = self.topic()
        self.make("a", topic)
        former = self.look("a").spec.serial
        waiting = self.reading("a")
        self.assertTrue(self.pending(waiting))
        self.leave("a")
        self.failed(InstanceMissing, waiting)
        self.refused(InstanceMissing, self.look, "a")
        self.make("a")
        self.assertGreater(self.look("a").spec.serial, former)
        self.assertEqual(Wish(), self.look("a").spec.wish)


# --- what it reads ---------------------------------------------------------------------------------------------------------------


class WishingContract(ConsumerSteps):
    def test_a_subscription_gives_all_partitions(self) -> None:
        """One instance has all partitions of all topics that it subscribed to; each topic counts once."""
        one, two = self.topic(2), self.topic(1)
        self.make("a", one, two, one)
        standing = self.look("a")
        self.assertEqual({one, two}, set(standing.topics))
        self.assertEqual(len(standing.topics), 2)
        self.assertEqual({(one, 0), (one, 1), (two, 0)}, {(at.topic, at.partition) for at in standing.partitions})

    def test_a_subscription_replaces_the_former(self) -> None:
        """What was subscribed before is read no more."""
        one, two = self.topic(), self.topic()
        self.make("a", one)
        self.wish("a", topics=(two,))
        self.put(one, b"one")
        self.put(two, b"two")
        self.assertEqual(((two,), each("two")), (self.look("a").topics, self.read()))

    def test_what_reads_nothing_may_not_read(self) -> None:
        """Before it wishes, and after it wishes for nothing, a read is IllegalState, and it has no partitions."""
        topic = self.topic()
        self.make("a")
        self.refused(IllegalState, self.given)
        self.wish("a", topics=(topic,))
        self.wish("a")
        self.refused(IllegalState, self.given)
        self.assertEqual(((), ()), (self.look("a").topics, self.look("a").partitions))

    def test_a_pattern_matches_whole_names(self) -> None:
        """Of the bound topics, those that it matches from end to end; one that is bound later is read too."""
        prefix = f"p{uuid4().hex[:8]}"
        one, other = self.topic(prefix=prefix), self.topic(prefix=f"x{prefix}")
        self.topic(prefix=prefix, bound=False)
        self.make("a")
        self.wish("a", pattern=f"{prefix}-.*")
        self.assertEqual((one,), self.look("a").topics)
        self.put(other, b"other")
        self.put(one, b"one")
        self.assertEqual(each("one"), self.read())
        later = self.topic(prefix=prefix)
        self.put(later, b"later")
        self.assertEqual(each("later"), self.read())
        self.assertEqual({one, later}, set(self.look("a").topics))

    def test_a_pattern_that_is_none(self) -> None:
        """Not RE2, or longer than 256 characters: BadParameter, and it reads what it read."""
        topic = self.topic()
        self.make("a", topic)
        for pattern in ("(", "(?=a)", "a" * 257):
            self.refused(BadParameter, self.wish, "a", pattern=pattern)
        self.assertEqual((topic,), self.look("a").topics)

    def test_partitions_by_hand(self) -> None:
        """It has the partitions that it asked for, and reads those alone; another assignment replaces them."""
        topic = self.topic(3)
        for partition in range(3):
            self.put(topic, b"%d" % partition, partition=partition)
        self.make("a")
        self.assign("a", TopicPartition(topic, 0), TopicPartition(topic, 2))
        self.assertEqual({0, 2}, self.has("a"))
        self.assertEqual(each("0", "2"), sorted(self.read(), key=str))
        self.assign("a", TopicPartition(topic, 1))
        self.assertEqual(((topic,), {1}, each("1")), (self.look("a").topics, self.has("a"), self.read()))

    def test_by_hand_and_subscribed_exclude_each_other(self) -> None:
        """IllegalState, and nothing changes, until it wishes for nothing."""
        topic = self.topic(2)
        self.make("a", topic)
        self.refused(IllegalState, self.assign, "a", TopicPartition(topic, 0))
        self.assertEqual({0, 1}, self.has("a"))
        self.wish("a")
        self.assign("a", TopicPartition(topic, 0))
        self.refused(IllegalState, self.wish, "a", topics=(topic,))
        self.refused(IllegalState, self.wish, "a", pattern=".*")
        self.assertEqual({0}, self.has("a"))
        self.wish("a")
        self.wish("a", topics=(topic,))
        self.assertEqual({0, 1}, self.has("a"))

    def test_what_is_not_there(self) -> None:
        """A topic that is not bound is TopicNotBound, whether it is there or not; a partition that is not there is PartitionMissing. It
        reads what it read."""
        topic, foreign = self.topic(2), self.topic(bound=False)
        self.make("a", topic)
        for name in (foreign, f"no-{uuid4().hex}"):
            self.refused(TopicNotBound, self.wish, "a", topics=(topic, name))
        self.assertEqual(((topic,), {0, 1}), (self.look("a").topics, self.has("a")))
        self.make("b")
        self.refused(PartitionMissing, self.assign, "b", TopicPartition(topic, 0), TopicPartition(topic, 2))
        self.refused(TopicNotBound, self.assign, "b", TopicPartition(foreign, 0))
        self.assertEqual(Wish(), self.look("b").spec.wish)

    def test_where_a_group_begins(self) -> None:
        """On a topic that is new to the group: at the log's start, or at the end of the moment at which it was asked for."""
        topic = self.topic()
        self.put(topic, b"before")
        self.make("a", topic, reset="latest")
        self.put(topic, b"after")
        self.assertEqual(each("after"), self.read())
        group = self.new_group()
        self.make("a", topic, group=group, reset="earliest")
        self.assertEqual(each("before", "after"), self.read(group=group))

    def test_no_place_to_begin(self) -> None:
        """Where nothing says where to begin, NoPlace; where the group has a place, that counts."""
        topic = self.topic()
        self.put(topic, b"0", b"1")
        self.make("a", reset=None)
        self.refused(NoPlace, self.wish, "a", topics=(topic,))
        self.refused(NoPlace, self.assign, "a", TopicPartition(topic, 0))
        self.make("b", topic)
        self.read("b", batch_size=1)
        self.commit("b")
        self.leave("b")
        self.wish("a", topics=(topic,))
        self.assertEqual(each("1"), self.read("a"))

    def test_a_binding_that_ends(self) -> None:
        """A read that waits, and one that comes later, is TopicNotBound."""
        topic = self.topic()
        self.make("a", topic)
        waiting = self.reading("a")
        self.assertTrue(self.pending(waiting))
        self.unbind(topic)
        self.failed(TopicNotBound, waiting)
        self.refused(TopicNotBound, self.given)


# --- reading ---------------------------------------------------------------------------------------------------------------------


class ReadingContract(ConsumerSteps):
    def test_reads_on(self) -> None:
        """In offset order in each partition, from where it stands; a read with nothing to give is empty. There is no lease."""
        topic = self.topic(2)
        self.put(topic, b"0", b"1")
        self.put(topic, b"x", b"y", partition=1)
        self.make("a", topic)
        delivery = self.given()
        by_partition = [(delivered.partition, delivered.message.value) for delivered in delivery.messages]
        self.assertEqual([(0, b"0"), (0, b"1"), (1, b"x"), (1, b"y")], sorted(by_partition))
        self.assertEqual({(topic, None, None)}, {(delivered.topic, delivered.token, delivered.attempt) for delivered in delivery.messages})
        written(delivery)
        self.put(topic, b"2")
        self.assertEqual((each("2"), []), (self.read(), self.read()))

    def test_a_read_waits_for_a_message(self) -> None:
        """Until there is one, or its time is over."""
        topic = self.topic()
        self.make("a", topic)
        waiting = self.reading()
        self.assertTrue(self.pending(waiting))
        self.put(topic, b"0")
        self.assertEqual(each("0"), written(self.wait(waiting)))
        waiting = self.reading(timeout=100)
        self.pass_ms(150)
        self.assertEqual((), self.wait(waiting).messages)

    def test_a_read_waits_for_so_many_bytes(self) -> None:
        """With min_bytes: for that much payload, and after its time for what there is."""
        topic = self.topic()
        self.make("a", topic)
        waiting = self.reading(min_bytes=5)
        self.put(topic, b"0000")
        self.assertTrue(self.pending(waiting))
        self.put(topic, b"1")
        self.assertEqual(each("0000", "1"), written(self.wait(waiting)))
        waiting = self.reading(timeout=100, min_bytes=100)
        self.put(topic, b"2")
        self.assertTrue(self.pending(waiting))
        self.pass_ms(150)
        self.assertEqual(each("2"), written(self.wait(waiting)))

    def test_bounds_of_an_answer(self) -> None:
        """At most batch_size messages and max_bytes of payload; a message that is larger comes alone."""
        topic = self.topic()
        self.put(topic, b"0" * 10, b"1" * 10, b"2" * 5000, b"3" * 10)
        self.make("a", topic)
        self.assertEqual([b"0" * 10], self.read(batch_size=1))
        self.assertEqual([b"1" * 10], self.read(max_bytes=1024))
        self.assertEqual([b"2" * 5000], self.read(max_bytes=1024))
        self.assertEqual([b"3" * 10], self.read(max_bytes=1024))

    def test_what_was_not_wholly_written_is_given_again(self) -> None:
        """All of the answer, though some of it was written; the position moves with the whole alone."""
        topic = self.topic()
        self.put(topic, b"0", b"1", b"2")
        self.make("a", topic)
        for count in (0, 1, 2):
            delivery = self.given()
            self.assertEqual(each("0", "1", "2"), values(delivery))
            delivery.settle(count)
        self.assertEqual((each("0", "1", "2"), []), (self.read(), self.read()))

    def test_one_read_at_a_time(self) -> None:
        """Two clients of one id share its messages: the second read waits until the first is written, and goes on behind it."""
        topic = self.topic()
        self.put(topic, b"0", b"1")
        self.make("a", topic)
        first = self.given(batch_size=1)
        second = self.reading(batch_size=1)
        self.assertTrue(self.pending(second))
        self.assertEqual((each("0"), each("1")), (written(first), written(self.wait(second))))

    def test_the_next_read_has_what_the_former_lost(self) -> None:
        """A read that waited behind one that broke is given its messages."""
        topic = self.topic()
        self.put(topic, b"0", b"1")
        self.make("a", topic)
        first, second = self.given(), self.reading()
        first.settle(0)
        self.assertEqual(each("0", "1"), written(self.wait(second)))

    def test_a_read_waits_for_another_for_its_own_time(self) -> None:
        """Then it is empty, and takes nothing."""
        topic = self.topic()
        self.put(topic, b"0", b"1")
        self.make("a", topic)
        first = self.given(batch_size=1)
        self.assertEqual((), self.given().messages)
        second = self.reading(timeout=100)
        self.pass_ms(150)
        self.assertEqual((), self.wait(second).messages)
        written(first)
        self.assertEqual(each("1"), self.read())

    def test_a_read_that_is_withdrawn(self) -> None:
        """Its client is gone: it takes nothing, and whoever waits behind it is not held up."""
        topic = self.topic()
        self.make("a", topic)
        first, second, third = self.reading(), self.reading(), self.reading()
        for withdrawn in (second, first):
            self.assertTrue(self.pending(withdrawn))
            withdrawn.cancel()
            with self.assertRaises(CancelledError):
                self.wait(withdrawn)
        self.put(topic, b"0")
        self.assertEqual(each("0"), written(self.wait(third)))


# --- committing ------------------------------------------------------------------------------------------------------------------


class CommittingContract(ConsumerSteps):
    def standing(self, *payloads: str, **settings: Any) -> str:
        """A topic with these, and instance ``a`` that is subscribed to it."""
        topic = self.topic()
        self.put(topic, *each(*payloads))
        self.make("a", topic, **settings)
        return topic

    def after(self, topic: str) -> list[bytes | None]:
        """What an instance gets that comes after ``a`` has left."""
        self.leave("a")
        self.make("z", topic)
        return self.read("z")

    def test_a_commit_of_what_was_written(self) -> None:
        """Without marks: what was wholly written, and no more; told with the last that was consumed. Nothing was: no marks."""
        topic = self.standing("0", "1", "2")
        self.assertEqual([], self.commit())
        self.read(batch_size=2)
        self.given().settle(0)
        at = TopicPartition(topic, 0)
        self.assertEqual([Mark(at, 2, "", 1)], self.commit())
        self.assertEqual((2, each("2")), (self.committed(topic), self.after(topic)))

    def test_what_was_read_is_not_done(self) -> None:
        """Without a commit it comes again to whoever has the partition next."""
        topic = self.standing("0", "1")
        self.read()
        self.assertEqual(each("0", "1"), self.after(topic))

    def test_a_commit_by_marks(self) -> None:
        """All below a mark is done; the instance's position stays where it is."""
        topic = self.standing("0", "1", "2")
        self.read(batch_size=1)
        at = TopicPartition(topic, 0)
        self.assertEqual([Mark(at, 2, "", 0)], self.commit("a", Mark(at, 2)))
        self.assertEqual((2, each("1")), (self.committed(topic), self.read(batch_size=1)))
        self.assertEqual(each("2"), self.after(topic))

    def test_marks_count_together_or_not_at_all(self) -> None:
        """Past the log's end: OffsetOutOfRange; no such partition: PartitionMissing; not bound: TopicNotBound; nothing is committed."""
        topic, foreign = self.standing("0", "1"), self.topic(bound=False)
        good = Mark(TopicPartition(topic, 0), 1)
        self.refused(OffsetOutOfRange, self.commit, "a", Mark(TopicPartition(topic, 0), 3))
        self.refused(PartitionMissing, self.commit, "a", good, Mark(TopicPartition(topic, 1), 0))
        self.refused(TopicNotBound, self.commit, "a", good, Mark(TopicPartition(foreign, 0), 0))
        self.refused(BadParameter, self.commit, "a", Mark(TopicPartition(topic, 0), -1))
        self.assertEqual(0, self.committed(topic))
        self.commit("a", Mark(TopicPartition(topic, 0), 2))
        self.assertEqual(2, self.committed(topic))

    def test_a_mark_below_what_is_done(self) -> None:
        """Moves the group back: what is above is given again, to who comes next; who has the partition reads on where it was."""
        topic = self.standing("0", "1", "2")
        self.read(batch_size=2)
        self.commit()
        self.commit("a", Mark(TopicPartition(topic, 0), 1))
        self.assertEqual((1, each("2")), (self.committed(topic), self.read()))
        self.assertEqual(each("1", "2"), self.after(topic))

    def test_a_clients_metadata(self) -> None:
        """Is kept with the place and handed back alone; at most 256 characters; the next commit replaces it."""
        topic = self.standing("0", "1")
        at = TopicPartition(topic, 0)
        self.commit("a", Mark(at, 1, "batch \u00e9\u4e2d 7"))
        self.assertEqual((1, "batch \u00e9\u4e2d 7"), (self.mark(topic).offset, self.mark(topic).metadata))
        self.refused(BadParameter, self.commit, "a", Mark(at, 2, "x" * 257))
        self.assertEqual(1, self.committed(topic))
        self.commit("a", Mark(at, 2, "y" * 256))
        self.assertEqual((2, "y" * 256), (self.mark(topic).offset, self.mark(topic).metadata))
        self.commit("a", Mark(at, 2))
        self.assertEqual("", self.mark(topic).metadata)
        self.commit("a", Mark(at, 0, "back"))
        self.read()
        self.commit("a")
        self.assertEqual((2, ""), (self.mark(topic).offset, self.mark(topic).metadata))

    def test_a_mark_for_a_partition_of_somebody_else(self) -> None:
        """IllegalState, and nothing is committed, while another instance has it; of nobody's, it is taken."""
        topic = self.topic(2)
        for partition in range(2):
            self.put(topic, b"0", b"1", partition=partition)
        self.make("a")
        self.assign("a", TopicPartition(topic, 0))
        self.make("b")
        self.assign("b", TopicPartition(topic, 1))
        self.refused(IllegalState, self.commit, "a", Mark(TopicPartition(topic, 0), 1), Mark(TopicPartition(topic, 1), 1))
        self.assertEqual((0, 0), (self.committed(topic, 0), self.committed(topic, 1)))
        self.leave("b")
        self.commit("a", Mark(TopicPartition(topic, 0), 1), Mark(TopicPartition(topic, 1), 1))
        self.assertEqual((1, 1), (self.committed(topic, 0), self.committed(topic, 1)))

    def test_places_that_are_asked_for(self) -> None:
        """In the order asked for; -1 where the group never came; PartitionMissing, TopicNotBound otherwise."""
        topic, strange, foreign = self.standing("0"), self.topic(), self.topic(bound=False)
        ask = [TopicPartition(strange, 0), TopicPartition(topic, 0)]
        marks = self.wait(self.consumers.committed(self.grant(), self.group, "a", ask))
        self.assertEqual([(ask[0], -1), (ask[1], 0)], [(mark.at, mark.offset) for mark in marks])
        self.refused(PartitionMissing, self.committed, topic, 1)
        self.refused(TopicNotBound, self.committed, foreign)

    def test_auto_commit_at_the_next_read(self) -> None:
        """What one read gave is done with the next, before that gives anything; what was not wholly written is not."""
        topic = self.standing("0", "1", "2", **AUTO)
        self.read(batch_size=1)
        self.assertEqual(0, self.committed(topic))
        self.given(batch_size=1).settle(0)
        self.assertEqual(1, self.committed(topic))
        self.read(batch_size=1)
        self.read(batch_size=1)
        self.assertEqual(2, self.committed(topic))
        self.assertEqual((), self.given().messages)
        self.assertEqual(3, self.committed(topic))

    def test_auto_commit_as_it_leaves(self) -> None:
        """What was wholly written is done when it is dismissed."""
        topic = self.standing("0", "1", **AUTO)
        self.read(batch_size=1)
        self.assertEqual(each("1"), self.after(topic))


# --- where it reads on -----------------------------------------------------------------------------------------------------------


class SeekingContract(ConsumerSteps):
    def test_seek(self) -> None:
        """To an offset, to the first that is there, to the end of the moment, to a time; what is done is given again. The group's place stays."""
        topic = self.topic()
        self.put(topic, b"0", timestamp=1_600_000_000_000)
        self.put(topic, b"1", timestamp=1_600_000_001_000)
        self.put(topic, b"2", timestamp=1_600_000_002_000)
        self.make("a", topic)
        self.read()
        self.commit()
        for to, found in (
            (1, each("1", "2")),
            ("earliest", each("0", "1", "2")),
            ("latest", []),
            (("time", 1_600_000_001_500), each("2")),
            (("time", 1_600_000_009_000), []),
            (3, []),
        ):
            self.seek(topic, to)
            self.assertEqual((to, found), (to, self.read()))
        self.assertEqual(3, self.committed(topic))
        self.put(topic, b"3")
        self.assertEqual(each("3"), self.read())

    def test_seek_moves_all_or_none(self) -> None:
        """What it does not have: IllegalState; past the end: OffsetOutOfRange; no such partition: PartitionMissing. The others stay."""
        topic = self.topic(2)
        self.put(topic, b"0", b"1")
        self.make("a")
        self.assign("a", TopicPartition(topic, 0))
        self.read()
        back = Aim(TopicPartition(topic, 0), 0)
        for error, partition, to in ((IllegalState, 1, 0), (OffsetOutOfRange, 0, 3), (PartitionMissing, 2, 0)):
            aims = [back, Aim(TopicPartition(topic, partition), to)]
            self.failed(error, self.consumers.seek(self.grant(), self.group, "a", aims))
        self.assertEqual([], self.read())

    def test_seek_while_an_answer_is_out(self) -> None:
        """What was given before does not move the position that was set."""
        topic = self.topic()
        self.put(topic, b"0", b"1", b"2")
        self.make("a", topic)
        out = self.given(batch_size=2)
        self.seek(topic, 1)
        out.settle(2)
        self.assertEqual(each("1", "2"), self.read())

    def test_read_again_and_commit(self) -> None:
        """After a seek to the start, a commit of what was written takes the group back to there."""
        topic = self.topic()
        self.put(topic, b"0", b"1", b"2")
        self.make("a", topic)
        self.read()
        self.commit()
        self.seek(topic, "earliest")
        self.read(batch_size=1)
        self.commit()
        self.assertEqual(1, self.committed(topic))
        self.assertEqual(each("1", "2"), self.read())


# --- whose partitions they are ---------------------------------------------------------------------------------------------------


class SharesContract(ConsumerSteps):
    def test_partitions_are_shared_out(self) -> None:
        """Evenly, each to one instance, all of them; who has some keeps what it may; who leaves gives all back."""
        topic = self.topic(4)
        self.make("a", topic)
        self.make("b", topic)
        a, b = self.has("a"), self.has("b")
        self.assertEqual((2, 2, {0, 1, 2, 3}), (len(a), len(b), a | b))
        self.make("c", topic)
        shares = [self.has(id) for id in "abc"]
        self.assertEqual([1, 1, 2], sorted(len(share) for share in shares))
        self.assertEqual({0, 1, 2, 3}, set().union(*shares))
        self.assertTrue(shares[0] <= a and shares[1] <= b, (shares, a, b))
        self.leave("b")
        self.leave("c")
        self.assertEqual({0, 1, 2, 3}, self.has("a"))

    def test_each_message_comes_once(self) -> None:
        """Instances of one group do not both get a message, and miss none."""
        topic = self.topic(4)
        for partition in range(4):
            self.put(topic, b"%d-0" % partition, b"%d-1" % partition, partition=partition)
        self.make("a", topic)
        self.make("b", topic)
        found = [*self.read("a"), *self.read("b")]
        self.assertEqual([b"%d-%d" % (partition, number) for partition in range(4) for number in range(2)], sorted(found, key=str))

    def test_groups_do_not_share(self) -> None:
        """Each group gets all messages."""
        topic, other = self.topic(), self.new_group()
        self.put(topic, b"0")
        self.make("a", topic)
        self.make("a", topic, group=other)
        self.assertEqual((each("0"), each("0")), (self.read(), self.read(group=other)))

    def test_what_is_free_goes_at_once(self) -> None:
        """A partition of which nothing is read and not committed goes to who comes, from the group's place on."""
        topic = self.topic(2)
        self.put(topic, b"0", b"1", partition=0)
        self.put(topic, b"0", b"1", partition=1)
        self.make("a", topic)
        self.read("a", batch_size=1)
        self.read("a", batch_size=3)
        self.commit("a")
        self.make("b", topic)
        self.assertEqual((1, 1), (len(self.has("a")), len(self.has("b"))))
        self.assertEqual([], self.read("b"))
        (partition,) = self.has("b")
        self.put(topic, b"2", partition=partition)
        self.assertEqual(each("2"), self.read("b"))

    def test_what_was_read_goes_when_it_is_committed(self) -> None:
        """Until then its holder gets no more of it, and who comes none; the partition that stays goes on."""
        topic = self.topic(2)
        for partition in range(2):
            self.put(topic, b"%d-0" % partition, partition=partition)
        self.make("a", topic)
        self.assertEqual(each("0-0", "1-0"), sorted(self.read("a"), key=str))
        self.make("b", topic)
        for partition in range(2):
            self.put(topic, b"%d-1" % partition, partition=partition)
        self.assertEqual((set(), []), (self.has("b"), self.read("b")))
        (stays,) = self.read("a")
        self.commit("a")
        self.assertEqual((1, 1), (len(self.has("a")), len(self.has("b"))))
        self.assertEqual((each("0-1", "1-1"), []), (sorted([stays, *self.read("b")], key=str), self.read("a")))

    def test_an_answer_that_is_out_keeps_its_partitions(self) -> None:
        """They go once it is settled and committed; one that was not wholly written is given to who comes."""
        topic = self.topic(2)
        for partition in range(2):
            self.put(topic, b"%d" % partition, partition=partition)
        self.make("a", topic)
        out = self.given("a")
        self.make("b", topic)
        self.assertEqual([], self.read("b"))
        out.settle(0)
        self.assertEqual(each("0", "1"), sorted([*self.read("a"), *self.read("b")], key=str))

    def test_who_leaves_gives_back_what_it_did_not_commit(self) -> None:
        """It comes again to the other, which waits for it."""
        topic = self.topic(1)
        self.put(topic, b"0", b"1")
        self.make("a", topic)
        self.read("a")
        self.commit("a", Mark(TopicPartition(topic, 0), 1))
        self.make("b", topic)
        waiting = self.reading("b")
        self.assertTrue(self.pending(waiting))
        self.leave("a")
        self.assertEqual(each("1"), written(self.wait(waiting)))

    def test_partitions_by_hand_are_not_shared_out(self) -> None:
        """Those that subscribed share the others; of two that ask for the same by hand, the later has it."""
        topic = self.topic(3)
        self.make("a", topic)
        self.make("b")
        self.assign("b", TopicPartition(topic, 1))
        self.assertEqual(({0, 2}, {1}), (self.has("a"), self.has("b")))
        self.make("c")
        self.assign("c", TopicPartition(topic, 1))
        self.assertEqual((set(), {1}), (self.has("b"), self.has("c")))
        self.leave("c")
        self.assertEqual({1}, self.has("b"))
        self.leave("b")
        self.assertEqual({0, 1, 2}, self.has("a"))

    def test_partitions_that_are_added(self) -> None:
        """Are shared out like the others, and read from their first message."""
        topic = self.topic(1)
        self.make("a", topic)
        self.make("b", topic)
        self.grow(topic, 2)
        self.put(topic, b"new", partition=1)
        self.assertEqual(each("new"), [*self.read("a"), *self.read("b")])
        self.assertEqual((1, 1), (len(self.has("a")), len(self.has("b"))))


class ConsumersContract(EnlistingContract, WishingContract, ReadingContract, CommittingContract, SeekingContract, SharesContract):
    """Mix into a test case that is a `Host`."""


# --- what takes long -------------------------------------------------------------------------------------------------------------


class ClockedConsumersContract(ConsumerSteps):
    """Where `Host.pass_ms` costs nothing. :cvar idle_ms: after how long the host's instances are discarded."""

    idle_ms = 300_000

    def test_who_waits_for_a_partition_has_it_in_time(self) -> None:
        """After the binding's ack_timeout_ms it goes though something of it is not committed: that comes again. Who lost it is told once, by a
        commit of what it read, which commits the others."""
        topic = self.topic(2)
        self.bind(topic, ack_timeout_ms=5_000)
        for partition in range(2):
            self.put(topic, b"%d" % partition, partition=partition)
        self.make("a", topic)
        self.read("a")
        self.make("b", topic)
        self.pass_ms(4_000)
        self.assertEqual([], self.read("b"))
        self.pass_ms(2_000)
        (moved,) = self.has("b")
        self.assertEqual([b"%d" % moved], self.read("b"))
        told = self.refused(IllegalState, self.commit, "a")
        self.assertIn(f"partition {moved}", told.detail)
        self.assertEqual((1, 0), (self.committed(topic, 1 - moved), self.committed(topic, moved)))
        self.commit("a")
        self.commit("b")
        self.assertEqual(1, self.committed(topic, moved))

    def test_one_that_nobody_calls_is_discarded(self) -> None:
        """Without a commit, though it commits by itself: what it read comes again."""
        topic = self.topic()
        self.put(topic, b"0")
        self.make("a", topic, **AUTO)
        self.read("a")
        self.pass_ms(self.idle_ms + 5_000)
        self.refused(InstanceMissing, self.given, "a")
        self.make("b", topic)
        self.assertEqual(each("0"), self.read("b"))

    def test_any_call_renews_it(self) -> None:
        """Each call begins its time anew; a read that waits is one until it ends."""
        topic = self.topic()
        self.make("a", topic)
        step = self.idle_ms - 10_000
        for call in (self.look, self.commit, self.read, lambda: self.committed(topic), lambda: self.seek(topic, 0)):
            self.pass_ms(step)
            call()
        waiting = self.reading(timeout=self.idle_ms + 60_000)
        self.pass_ms(self.idle_ms + 50_000)
        self.put(topic, b"0")
        self.assertEqual(each("0"), written(self.wait(waiting)))


# --- beside the sub endpoint -----------------------------------------------------------------------------------------------------


class SharingContract(ConsumerSteps):
    """:ivar subscriber: the same groups, as the sub endpoint has them."""

    subscriber: ISubscriber

    def polling(self, timeout: int = 30_000, ack: Any = "auto", **ask: Any) -> "Deferred[Delivery]":
        settings = {"batch_size": 10_000, **ask}
        return self.subscriber.poll(self.grant(), Poll(self.group, timeout_ms=timeout, ack=ack, **settings))

    def poll(self, **ask: Any) -> list[bytes | None]:
        """What the sub endpoint's client gets without waiting; wholly written."""
        return written(self.wait(self.polling(0, **ask)))

    def lease(self, count: int, topic: str) -> list[str]:
        """So many messages by explicit leases; their tokens."""
        delivery: Delivery = self.wait(self.polling(0, "explicit", batch_size=count, topics=(topic,)))
        self.assertEqual(count, len(delivery.messages))
        delivery.settle(count)
        return [str(delivered.token) for delivered in delivery.messages]

    def test_an_instance_has_its_partitions_alone(self) -> None:
        """The sub endpoint's clients of the group get nothing of them, and all of it again, but for what is done, when it leaves."""
        topic = self.topic()
        self.make("a", topic)
        self.put(topic, b"0", b"1")
        self.assertEqual([], self.poll(topics=(topic,)))
        self.assertEqual(each("0", "1"), self.read())
        self.commit("a", Mark(TopicPartition(topic, 0), 1))
        waiting = self.polling(topics=(topic,))
        self.assertTrue(self.pending(waiting))
        self.leave()
        self.assertEqual(each("1"), written(self.wait(waiting)))

    def test_other_partitions_stay_with_the_sub_endpoint(self) -> None:
        """One that is assigned by hand takes that alone."""
        topic = self.topic(2)
        self.put(topic, b"0")
        self.put(topic, b"1", partition=1)
        self.make("a")
        self.assign("a", TopicPartition(topic, 1))
        self.assertEqual((each("0"), each("1")), (self.poll(topics=(topic,)), self.read()))

    def test_what_is_leased_stays_so(self) -> None:
        """The instance stops before it; once it is done it goes on behind it, and once it came back it is given it."""
        topic = self.topic()
        self.make("first", topic)
        self.leave("first")
        self.put(topic, b"0", b"1", b"2")
        done, back = self.lease(2, topic)
        self.make("a", topic)
        self.assertEqual([], self.read())
        self.wait(self.subscriber.ack(self.grant(), [done]))
        self.assertEqual([], self.read())
        self.wait(self.subscriber.nack(self.grant(), [back], 0, False))
        self.assertEqual(each("1", "2"), self.read())

    def test_what_was_done_ahead_is_skipped(self) -> None:
        """A message that was acked behind one that is not done; after a seek to it, it is given."""
        topic = self.topic()
        self.make("first", topic)
        self.leave("first")
        self.put(topic, b"0", b"1", b"2")
        tokens = self.lease(2, topic)
        self.wait(self.subscriber.ack(self.grant(), tokens[1:]))
        self.wait(self.subscriber.nack(self.grant(), tokens[:1], 0, False))
        self.make("a", topic)
        self.assertEqual(each("0", "2"), self.read())
        self.seek(topic, 1)
        self.assertEqual(each("1", "2"), self.read())

    def test_a_commit_counts_for_the_sub_endpoint(self) -> None:
        """What an instance committed is not given by the sub endpoint; a mark ends the leases below it."""
        topic = self.topic()
        self.make("first", topic)
        self.leave("first")
        self.put(topic, b"0", b"1", b"2")
        (token,) = self.lease(1, topic)
        self.make("a", topic)
        self.commit("a", Mark(TopicPartition(topic, 0), 2))
        self.assertEqual(1, self.wait(self.subscriber.ack(self.grant(), [token])).count)
        self.leave("a")
        self.assertEqual(each("2"), self.poll(topics=(topic,)))
