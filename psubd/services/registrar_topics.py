"""The registrar's topics: in the storage and in the registry both."""

from collections.abc import Mapping, Sequence
from typing import Any

import msgspec
from msgspec import UNSET
from twisted.internet.defer import Deferred

from psubd.errors import BadBody, Exists, Forbidden, InUse, PsubdError, StorageTimeout, StorageUnavailable, TopicMissing
from psubd.interfaces import Plan
from psubd.model import Binding, Elastic, StoredTopic, Topic, TopicSpec
from psubd.services.registrar_clearing import Clearing
from psubd.services.registrar_desk import Desk
from psubd.services.registrar_rolls import Rolls, put, put_bindings
from psubd.services.registrar_rules import TopicChanges, check_changes, check_elastic, check_spec

ROOM = 65_536 + 4096
"""Bytes that a record may have beside its value: key and headers (contract, section 2), and the storage's own overhead."""

MEMBERS = ("retention.ms", "retention.bytes", "cleanup.policy")
"""Kafka's names of settings that are members of `Topic`."""


class Topics(Desk):
    """See `psubd.interfaces.IRegistrar`."""

    def create_topic(
        self, spec: TopicSpec, owner: str, elastic: Elastic | None, partitions_given: bool, actor: str, adopt: bool = True, most: int | None = None
    ) -> "Deferred[Topic]":
        return self._in_turn(lambda: self._create_topic(spec, owner, elastic, partitions_given, actor, adopt, most))

    async def _create_topic(
        self, spec: TopicSpec, owner: str, elastic: Elastic | None, partitions_given: bool, actor: str, adopt: bool, most: int | None
    ) -> Topic:
        check_spec(spec, elastic)

        def draw(rolls: Rolls, serial: int) -> tuple[Topic, Plan]:
            self._check_new(rolls, spec.name, owner, most)
            config = own_settings(stored) if adopted else as_stored(spec.config, stored)
            topic = registered(stored, owner, elastic, serial, self._clock.epoch_ms(), adopted, config)
            items = {**rolls.bindings(owner), topic.id: Binding(owner, topic.id, serial, pub=True, version=serial)}
            what = f"topic.{'adopted' if adopted else 'created'} {topic.id}"
            return topic, Plan(what, (put(f"/topics/{topic.id}", topic), put_bindings(owner, items)))

        self._check_new(self._now(), spec.name, owner, most)
        stored, adopted = await self._stored(msgspec.structs.replace(spec, max_message_bytes=self._max_message_bytes + ROOM))
        if adopted and not adopt:
            raise Exists(f"topic {spec.name} exists in the storage; choose another id")
        try:
            check_adopted(stored, spec, elastic, partitions_given)
            return await self._make(actor, draw)
        except StorageTimeout:
            raise  # it may be registered: nothing is taken back
        except BaseException:
            if not adopted:
                await self._take_back(stored)
            raise

    def _check_new(self, rolls: Rolls, id: str, owner: str, most: int | None) -> None:
        if not rolls.has("application", owner):
            raise BadBody(f"owner: application {owner[:80]!r} is not registered")
        if rolls.has("topic", id):
            raise Exists(f"topic {id} exists; PATCH it, or choose another id")
        if most is not None and len(rolls.owned_by(owner)) >= most:
            raise Forbidden(f"application {owner} owns {most} topics or more, and may not make another; ask an administrator for it")

    async def _stored(self, spec: TopicSpec) -> tuple[StoredTopic, bool]:
        """The topic in the storage, and whether it was there before."""
        there: StoredTopic | None = (await self._storage.describe([spec.name])).get(spec.name)
        if there is not None:
            return there, True
        try:
            return await self._storage.create_topic(spec), False
        except Exists:  # somebody made it in between
            there = (await self._storage.describe([spec.name])).get(spec.name)
            if there is None:
                raise
            return there, True

    async def _take_back(self, stored: StoredTopic) -> None:
        """The topic that was made a moment ago is not registered: away with it, unless another node registered it meanwhile."""
        if self._now().has("topic", stored.name):
            return
        try:
            await self._storage.delete_topic(stored.name)
        except PsubdError as failed:
            self.log.warn("topic {topic} stays in the storage, empty and not registered: {why}", topic=stored.name, why=failed.detail)

    # --- alter

    def alter_topic(self, id: str, changes: Mapping[str, Any], actor: str, if_match: int | None) -> "Deferred[Topic]":
        return self._in_turn(lambda: self._alter_topic(id, changes, actor, if_match))

    async def _alter_topic(self, id: str, changes: Mapping[str, Any], actor: str, if_match: int | None) -> Topic:
        taken = check_changes(changes)
        rolls = self._now()
        before = rolls.topic(id)
        rolls.check_version("topic", id, if_match)
        stored = await self._still_there(before)
        check_growth(id, stored.partitions, taken, before.elastic)

        def draw(rolls: Rolls, serial: int) -> tuple[Topic, Plan]:
            topic = rolls.topic(id)
            rolls.check_version("topic", id, if_match)
            if topic.serial != before.serial:
                raise TopicMissing(f"topic {id} was deleted and made again meanwhile; look at it again")
            topic = altered(topic, now, taken)
            return topic, Plan(f"topic.altered {id}", (put(f"/topics/{id}", topic),))

        now = await self._configure(stored, taken)
        try:
            now = await self._grow(now, taken)
        except BaseException:
            await self._configure_back(stored, taken)
            raise
        try:
            return await self._make(actor, draw)
        except StorageTimeout:
            raise  # it may be registered: nothing is taken back
        except BaseException:
            await self._configure_back(stored, taken)
            raise

    async def _still_there(self, topic: Topic) -> StoredTopic:
        stored: StoredTopic | None = (await self._storage.describe([topic.id])).get(topic.id)
        if stored is None or stored.uid != topic.uid:
            raise TopicMissing(f"topic {topic.id} is gone from the storage; delete it here, then make it again")
        return stored

    async def _configure(self, stored: StoredTopic, taken: TopicChanges) -> StoredTopic:
        told = taken.stored()
        return await self._storage.configure(stored.name, told) if told else stored

    async def _grow(self, stored: StoredTopic, taken: TopicChanges) -> StoredTopic:
        if taken.partitions is UNSET or taken.partitions == stored.partitions:
            return stored
        return await self._storage.grow(stored.name, taken.partitions)

    async def _configure_back(self, stored: StoredTopic, taken: TopicChanges) -> None:
        """The registry did not take it: set the storage's settings as they were. Partitions stay: none can be taken away."""
        told = taken.stored()
        former: dict[str, Any] = {name: getattr(stored, name) for name in told if name != "config"}
        if "config" in told:
            former["config"] = {name: stored.config[name] for name in told["config"] if name in stored.config}
        if not former:
            return
        try:
            await self._storage.configure(stored.name, former)
        except PsubdError as failed:
            self.log.warn("topic {topic} keeps settings that were not registered: {why}", topic=stored.name, why=failed.detail)

    # --- delete

    def delete_topic(self, id: str, force: bool, data: bool, actor: str, if_match: int | None) -> "Deferred[dict[str, list[str]]]":
        return self._in_turn(lambda: self._delete_topic(id, force, data, actor, if_match))

    async def _delete_topic(self, id: str, force: bool, data: bool, actor: str, if_match: int | None) -> dict[str, list[str]]:
        def draw(rolls: Rolls, serial: int) -> tuple[tuple[Clearing, Topic], Plan]:
            topic = rolls.topic(id)
            rolls.check_version("topic", id, if_match)
            clearing = Clearing(rolls, serial)
            clearing.drop_topics({id})
            if not force:
                refuse_if_bound(topic, clearing)
            return (clearing, topic), Plan(f"topic.deleted {id}", tuple(clearing.writes))

        draw(self._now(), 0)
        stored = await self._reachable([id])
        clearing, topic = await self._make(actor, draw)
        for group, name in clearing.places:
            await self._forget(group, name)
        if data or not topic.adopted:
            await self._drop_data([topic], stored)
        return clearing.what_went()

    async def _reachable(self, topics: Sequence[str]) -> dict[str, StoredTopic]:
        """The topics in the storage, so that nothing is unregistered while their data could not be deleted."""
        return await self._storage.describe(topics) if topics else {}

    async def _drop_data(self, topics: Sequence[Topic], stored: Mapping[str, StoredTopic]) -> None:
        """Delete the topics from the storage, as far as they are the ones that were registered.

        :raises StorageUnavailable: and says what is left; the registry is changed by then.
        """
        left: dict[str, str] = {}
        for topic in topics:
            if topic.id in stored and stored[topic.id].uid == topic.uid:
                try:
                    await self._storage.delete_topic(topic.id)
                except PsubdError as failed:
                    left[topic.id] = failed.detail
        if left:
            raise StorageUnavailable(
                f"registered no more, but the storage did not delete the data of {', '.join(left)}: {next(iter(left.values()))}. "
                "Register it again (it is adopted then) and delete it with data=true",
                topics=list(left),
            )


def registered(stored: StoredTopic, owner: str, elastic: Elastic | None, serial: int, now: int, adopted: bool, config: Mapping[str, str]) -> Topic:
    """The topic as it stands in the storage, with what the registry adds."""
    return Topic(
        id=stored.name,
        owner=owner,
        serial=serial,
        created_ms=now,
        uid=stored.uid,
        partitions=stored.partitions,
        replication=stored.replication,
        retention_ms=stored.retention_ms,
        retention_bytes=stored.retention_bytes,
        cleanup=stored.cleanup,
        elastic=elastic,
        config=dict(config),
        adopted=adopted,
    )


def as_stored(asked: Mapping[str, str], stored: StoredTopic) -> dict[str, str]:
    """The settings that somebody asked for, as the storage has them. Kafka keeps what psubd itself sets as the topic's too."""
    return {name: stored.config.get(name, value) for name, value in asked.items()}


def own_settings(stored: StoredTopic) -> dict[str, str]:
    """What is set on an adopted topic itself, but for what a topic has members of its own for."""
    return {name: value for name, value in stored.config.items() if name not in MEMBERS}


def altered(topic: Topic, stored: StoredTopic, taken: TopicChanges) -> Topic:
    """The topic with what the storage has now, and the elastic policy that was given."""
    elastic = topic.elastic if taken.elastic is UNSET else taken.elastic
    config = as_stored({**topic.config, **({} if taken.config is UNSET else taken.config)}, stored)
    now = registered(stored, topic.owner, elastic, topic.serial, topic.created_ms, topic.adopted, config)
    return msgspec.structs.replace(now, uid=topic.uid)


def check_adopted(stored: StoredTopic, spec: TopicSpec, elastic: Elastic | None, partitions_given: bool) -> None:
    """:raises Exists: the storage has it with other partitions than were given. :raises BadBody:"""
    if partitions_given and stored.partitions != spec.partitions:
        raise Exists(
            f"topic {spec.name} is in the storage with {stored.partitions} partitions, not {spec.partitions}; leave partitions out to adopt it"
        )
    check_elastic(elastic, stored.partitions)


def check_growth(id: str, present: int, taken: TopicChanges, elastic: Elastic | None) -> None:
    """``present``: the partitions that the storage has. :raises BadBody:"""
    wanted = present if taken.partitions is UNSET else taken.partitions
    if wanted < present:
        raise BadBody(f"partitions: topic {id} has {present}, and none can be taken away; send {present} or more")
    check_elastic(elastic if taken.elastic is UNSET else taken.elastic, wanted)


def refuse_if_bound(topic: Topic, clearing: Clearing) -> None:
    """:raises InUse: while another application is bound, or a binding names it as its dead-letter topic."""
    others = [binding for binding in clearing.bindings if binding != f"{topic.owner}/{topic.id}"]
    used = [*(f"bound: {name}" for name in others), *(f"dead-letter topic of: {name}" for name in clearing.dead_letters)]
    if used:
        raise InUse(f"topic {topic.id} is in use ({'; '.join(used[:10])}); delete these bindings first, or use force=true to take them along")
