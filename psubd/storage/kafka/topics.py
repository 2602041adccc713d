"""Topics made, changed and deleted."""

import time
from collections.abc import Mapping
from typing import Any

from kafka import errors
from kafka.protocol.admin import CreatePartitionsRequest, CreateTopicsRequest, DeleteTopicsRequest, IncrementalAlterConfigsRequest

from psubd.errors import BadBody, Exists, PsubdError, StorageTimeout, TopicMissing
from psubd.model import StoredTopic, TopicSpec
from psubd.storage.kafka.atlas import NO_LEADER, TOPIC_RESOURCE, Atlas, metadata_request
from psubd.storage.kafka.faults import GONE, MAY_BE_STORED, RETRIABLE, Lost, Unsent, of_topic
from psubd.storage.kafka.line import Line
from psubd.storage.kafka.settings import KafkaSettings

SET = 0
AGREE_MS = 1_000
"""How long a broker may take to say what it knows of a topic; one that takes longer is not waited for."""

DEFAULT_REPLICATION = -1


class Refused(Exception):
    """A broker's answer to a change, with its own words. Retried where the error is retriable."""

    def __init__(self, error: type[errors.KafkaError], message: str | None) -> None:
        super().__init__(message)
        self.error, self.message = error, message


class RefusedForNow(Refused):
    """The same, and another try may do."""


AGAIN = (Unsent, RefusedForNow)


class Topics:
    """Runs on the control line. Any broker passes a change on to the controller."""

    def __init__(self, line: Line, atlas: Atlas, settings: KafkaSettings) -> None:
        self.line, self.atlas, self.settings = line, atlas, settings

    async def create(self, spec: TopicSpec) -> StoredTopic:
        """Make it, and wait until every broker knows it. :raises Exists: :raises BadBody:"""
        deadline = self._deadline()
        try:
            await self.line.persist(deadline, lambda left: self._change(self._create_request(spec), left), again=AGAIN)
        except Refused as refused:
            if refused.error is errors.TopicAlreadyExistsError:
                raise Exists(f"topic {spec.name!r} is in Kafka already") from refused
            raise of_topic(refused.error(), spec.name, refused.message) from refused
        await self._everywhere(spec.name, spec.partitions, deadline)
        return await self._now(spec.name)

    async def grow(self, topic: str, partitions: int) -> StoredTopic:
        """:raises TopicMissing: :raises BadBody: where it has as many or more."""
        deadline = self._deadline()
        wanted = CreatePartitionsRequest.CreatePartitionsTopic(name=topic, count=partitions, assignments=None)
        before = await self._now(topic)
        if partitions <= before.partitions:
            raise BadBody(f"topic {topic!r} has {before.partitions} partitions; a topic can only get more")
        try:
            request = CreatePartitionsRequest(topics=[wanted], timeout_ms=self._timeout(), validate_only=False)
            await self.line.persist(deadline, lambda left: self._change(request, left), again=AGAIN)
        except Refused as refused:
            raise of_topic(refused.error(), topic, refused.message) from refused
        await self._everywhere(topic, partitions, deadline)
        return await self._now(topic)

    async def configure(self, topic: str, changes: Mapping[str, Any]) -> StoredTopic:
        """:raises TopicMissing: :raises BadBody:"""
        before = await self._now(topic)
        entries = alterations(changes)
        if not entries:
            return before
        resource = IncrementalAlterConfigsRequest.AlterConfigsResource(resource_type=TOPIC_RESOURCE, resource_name=topic, configs=entries)
        request = IncrementalAlterConfigsRequest(resources=[resource], validate_only=False)
        try:
            await self.line.persist(self._deadline(), lambda left: self._change(request, left), again=AGAIN)
        except Refused as refused:
            raise of_topic(refused.error(), topic, refused.message) from refused
        return await self._settled(topic, changes)

    async def delete(self, topic: str) -> None:
        """Delete it, and wait until no broker knows it. One that is not there: done."""
        deadline = self._deadline()
        state = DeleteTopicsRequest.DeleteTopicState
        request = DeleteTopicsRequest(topics=[state(name=topic)], topic_names=[topic], timeout_ms=self._timeout())
        try:
            await self.line.persist(deadline, lambda left: self._change(request, left), again=AGAIN)
        except Refused as refused:
            if refused.error is not errors.UnknownTopicOrPartitionError:
                raise of_topic(refused.error(), topic, refused.message) from refused
        await self._everywhere(topic, 0, deadline)
        await self.atlas.fresh([topic])

    # --- pieces ---

    def _deadline(self) -> float:
        return time.monotonic() + self.settings.storage_timeout_s

    def _timeout(self) -> int:
        return int(self.settings.request_timeout_ms)

    def _create_request(self, spec: TopicSpec) -> CreateTopicsRequest:
        config = CreateTopicsRequest.CreatableTopic.CreatableTopicConfig
        topic = CreateTopicsRequest.CreatableTopic(
            name=spec.name,
            num_partitions=spec.partitions,
            replication_factor=DEFAULT_REPLICATION if spec.replication is None else spec.replication,
            assignments=[],
            configs=[config(name=name, value=value) for name, value in created_settings(spec).items()],
        )
        return CreateTopicsRequest(topics=[topic], timeout_ms=self._timeout(), validate_only=False)

    async def _change(self, request: Any, left_ms: float) -> None:
        response = await self.line.ask(request, timeout_ms=left_ms)
        for result in results(response):
            error = errors.for_code(result.error_code)
            if error in MAY_BE_STORED:
                raise Lost("Kafka does not say what became of it") from error(result.error_message)
            if error is not errors.NoError:
                passing = issubclass(error, RETRIABLE) and error not in GONE
                raise (RefusedForNow if passing else Refused)(error, result.error_message)

    async def _now(self, topic: str) -> StoredTopic:
        try:
            found = await self.line.persist(self._deadline(), lambda left: self.atlas.fresh([topic], left), again=(Unsent, Lost))
        except errors.KafkaError as failed:
            raise of_topic(failed, topic) from failed
        if topic not in found:
            raise TopicMissing(f"topic {topic!r} is not in Kafka")
        stored: StoredTopic = found[topic]
        return stored

    async def _settled(self, topic: str, changes: Mapping[str, Any]) -> StoredTopic:
        """The topic once the broker that is asked says what was set: it hears of it a moment after the controller said yes."""
        deadline = self._deadline()
        while True:
            stored = await self._now(topic)
            wanted = {name: value for name, value in changes.items() if name in ("retention_ms", "retention_bytes")}
            config = changes.get("config") or {}
            if all(getattr(stored, name) == value for name, value in wanted.items()) and told(stored, config):
                return stored
            if time.monotonic() > deadline:
                return stored
            await self.line.net.sleep(0.05)

    async def _everywhere(self, topic: str, partitions: int, deadline: float) -> None:
        """Wait until every broker that answers knows the topic with so many partitions that have leaders; 0: until none knows it."""
        for node in self.line.managers[0].nodes():
            while not await self._agrees(node, topic, partitions):
                if time.monotonic() > deadline:
                    raise StorageTimeout(f"Kafka took the change of topic {topic!r}, but did not carry it out in time")
                await self.line.net.sleep(0.05)

    async def _agrees(self, node: int, topic: str, partitions: int) -> bool:
        try:
            response = await self.line.ask(metadata_request([topic]), node, timeout_ms=AGREE_MS)
        except (Unsent, Lost):
            return True  # a broker that is down hears of it when it comes back
        ready = [each for each in response.topics[0].partitions if each.leader_id != NO_LEADER] if response.topics else []
        return len(ready) >= partitions if partitions else not ready


def told(stored: StoredTopic, config: Mapping[str, str]) -> bool:
    """Whether what is stored says what was set."""
    return all(stored.config.get(name) == value for name, value in config.items())


def results(response: Any) -> Any:
    """The answers about each topic, by whatever name that kind of response has for them."""
    for name in ("topics", "results", "responses"):
        if name in response._struct.fields:
            return getattr(response, name)
    raise PsubdError(f"{type(response).__name__} is no answer about topics")


def created_settings(spec: TopicSpec) -> dict[str, str]:
    """Kafka's settings of a topic to be made. What ``config`` says wins."""
    return {
        "cleanup.policy": spec.cleanup,
        "retention.ms": limit(spec.retention_ms),
        "retention.bytes": limit(spec.retention_bytes),
        "max.message.bytes": str(spec.max_message_bytes),
        **spec.config,
    }


def alterations(changes: Mapping[str, Any]) -> list[Any]:
    """:raises BadBody: for what a topic does not have."""
    entry = IncrementalAlterConfigsRequest.AlterConfigsResource.AlterableConfig
    values: dict[str, str] = {}
    for name, value in changes.items():
        if name in ("retention_ms", "retention_bytes"):
            values[name.replace("_", ".")] = limit(value)
        elif name == "config":
            values.update(value)
        else:
            raise BadBody(f"{name}: not a setting of a topic that can be changed")
    return [entry(name=name, config_operation=SET, value=str(value)) for name, value in values.items()]


def limit(value: int | None) -> str:
    """As Kafka writes a limit: -1 is none."""
    return "-1" if value is None else str(value)
