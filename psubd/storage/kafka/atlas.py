"""Which topics there are: their partitions' leaders, ids and settings, kept in memory and asked afresh again and again."""

import base64
import time
import uuid
from collections.abc import Callable, Iterable, Mapping
from typing import Any, Literal

import msgspec
from kafka import errors
from kafka.net.wakeup_notifier import WakeupNotifier
from kafka.protocol.admin import DescribeConfigsRequest
from kafka.protocol.metadata import MetadataRequest

from psubd.model import Cleanup, PartitionLayout, StoredTopic
from psubd.storage.kafka.faults import words
from psubd.storage.kafka.line import Line, Turn
from psubd.storage.kafka.settings import KafkaSettings

TOPIC_RESOURCE = 2
OWN_SETTING = 1
"""Source of a topic's setting that somebody set on the topic itself."""

SETTINGS_AGE_S = 30.0
"""Settings are asked afresh so often; the partitions and leaders far more often."""

UNUSED_S = 900.0
"""A topic that nobody named for so long is no longer looked after."""

KICK_GAP_S = 0.05
"""The least time between two looks: many partitions of one broker lose their leader at once."""

IDLE_SHARE = 10
LONGEST_PAUSE_S = 4.0
"""With so many topics that a look takes long, the thread rests ten times as long after it; new partitions are seen within five seconds all the
same."""

DESCRIBE_AT_ONCE = 200
"""Topics in one request for settings: their answers are large, about 40 settings each."""

BAD_LOOKS = 2
"""Looks that must fail in a row before psubd says that Kafka is away: one broker of three that dies fails one."""

NO_LEADER = -1

Change = Literal["gone", "other", "grown"]
"""What befell a topic: it is gone, it is another one now, it has more partitions."""


class Chart(msgspec.Struct, frozen=True):
    """One topic as it was last seen. ``leaders`` holds each partition's broker, `NO_LEADER` where it has none; ``epochs`` their leader epochs, -1
    where they are not told."""

    stored: StoredTopic
    id: uuid.UUID
    leaders: tuple[int, ...]
    epochs: tuple[int, ...] = ()


class Atlas:
    """The topics that somebody asked for. The charts are written on the line's thread and read on any.

    :ivar trouble: why Kafka cannot be asked, or None. :ivar refused: topics of which it does not say whether they are there (a right that psubd
        lacks), with why: no other topic suffers from it.
    :param changed: called on the line's thread with a topic and what befell it. :param moved: called there when partitions got other leaders.
    """

    def __init__(self, line: Line, settings: KafkaSettings, changed: Callable[[str, Change], None], moved: Callable[[], None]) -> None:
        self.line, self.settings, self.changed, self.moved = line, settings, changed, moved
        self.charts: dict[str, Chart] = {}
        self.trouble: str | None = "Kafka was not reached yet"
        self.wanted: dict[str, float] = {}
        self.failed_looks = 0
        self.stopped = False
        self.refused: dict[str, errors.KafkaError] = {}
        self._heard: dict[tuple[str, int], int] = {}
        self._settings: dict[str, dict[str, tuple[str, int]]] = {}
        self._settings_at = 0.0
        self._wake = WakeupNotifier(line.net)
        self._turn = Turn()
        """An answer that was asked for earlier is taken in earlier: a topic that was deleted does not come back by a late one."""

    # --- from any thread ---

    def want(self, topic: str, now: float | None = None) -> Chart | None:
        """The topic's chart, which is looked after from now on; None: not there, or not looked at yet. ``now``: `time.monotonic`, if it is known."""
        self.wanted[topic] = time.monotonic() if now is None else now
        return self.charts.get(topic)

    def leader(self, topic: str, partition: int) -> int | None:
        """The broker that leads the partition; None: not known."""
        chart = self.charts.get(topic)
        if chart is None or partition >= len(chart.leaders) or chart.leaders[partition] == NO_LEADER:
            return None
        return chart.leaders[partition]

    def epoch(self, topic: str, partition: int) -> int:
        """The partition's newest leader epoch that was heard of, from whomever; -1: none was."""
        chart = self.charts.get(topic)
        told = chart.epochs[partition] if chart is not None and partition < len(chart.epochs) else -1
        return max(told, self._heard.get((topic, partition), -1))

    def heard(self, topic: str, partition: int, epoch: int) -> None:
        """A batch of that leader epoch was read: charts lag behind an election."""
        if epoch > self._heard.get((topic, partition), -1):
            self._heard[topic, partition] = epoch

    def kick(self) -> None:
        """Look again soon: somebody found a chart to be wrong."""
        self._wake.notify()

    def stop(self) -> None:
        self.stopped = True
        self.kick()

    # --- on the line's thread ---

    async def watch(self) -> None:
        """Look after the wanted topics until `stop`."""
        while not self.stopped:
            begun = time.monotonic()
            try:
                await self._look()
            except Exception as failed:  # noqa: BLE001 - whatever it was, nobody else would look again
                self._failed(failed)
            else:
                self.failed_looks, self.trouble = 0, None
            took = time.monotonic() - begun
            pause = 0.2 if self.failed_looks else max(self.settings.metadata_interval_ms / 1000, min(LONGEST_PAUSE_S, took * IDLE_SHARE))
            await self.line.net.sleep(KICK_GAP_S)
            await self._wake(pause)

    def _failed(self, failed: BaseException) -> None:
        self.failed_looks += 1
        if self.failed_looks >= BAD_LOOKS or self.trouble is not None:
            self.trouble = f"Kafka: {words(failed)}"

    async def fresh(self, topics: Iterable[str], timeout_ms: float | None = None) -> dict[str, StoredTopic]:
        """What is there now of ``topics``, asked afresh. :raises Unsent: :raises Lost: :raises KafkaError:"""
        names = list(dict.fromkeys(topics))
        for name in names:
            self.wanted[name] = time.monotonic()
        found = await self._charts(names, names, timeout_ms)
        for name in names:
            if name in self.refused:
                raise self.refused[name]
        return {name: chart.stored for name, chart in found.items()}

    async def _look(self) -> None:
        now = time.monotonic()
        names = [name for name, asked in list(self.wanted.items()) if now - asked < UNUSED_S]
        for name in set(self.wanted) - set(names):
            self.wanted.pop(name, None)
            self.charts.pop(name, None)
            self._settings.pop(name, None)
            self.refused.pop(name, None)
        stale = now - self._settings_at > SETTINGS_AGE_S
        await self._charts(names, names if stale else [])
        if stale:
            self._settings_at = now

    async def _charts(self, names: list[str], describe: list[str], timeout_ms: float | None = None) -> dict[str, Chart]:
        async with self._turn:
            return await self._chart_these(names, describe, timeout_ms)

    async def _chart_these(self, names: list[str], describe: list[str], timeout_ms: float | None) -> dict[str, Chart]:
        response = await self.line.ask(metadata_request(names), timeout_ms=timeout_ms)
        for name in names:
            self.refused.pop(name, None)
        seen = {topic.name: topic for topic in response.topics if self._there(topic)}
        unknown = {name for name, topic in seen.items() if self._is_new(name, topic) or name not in self._settings}
        ask = [name for name in seen if name in unknown or name in describe]
        for begin in range(0, len(ask), DESCRIBE_AT_ONCE):
            self._settings.update(await self._describe_settings(ask[begin : begin + DESCRIBE_AT_ONCE], timeout_ms))
        found = {name: chart_of(topic, self._settings[name]) for name, topic in seen.items() if name in self._settings}
        for name in names:
            if name not in self.refused:
                self._put(name, found.get(name))
        return found

    def _there(self, topic: Any) -> bool:
        try:
            return topic_there(topic)
        except errors.KafkaError as refused:
            self.refused[topic.name] = refused
            return False

    def _is_new(self, name: str, topic: Any) -> bool:
        chart = self.charts.get(name)
        return chart is None or chart.id != topic.topic_id

    def _put(self, name: str, chart: Chart | None) -> None:
        before = self.charts.get(name)
        if chart is None:
            self.charts.pop(name, None)
            self._settings.pop(name, None)
        else:
            self.charts[name] = chart
        if before is not None and (chart is None or chart.id != before.id):
            self._heard = {place: epoch for place, epoch in list(self._heard.items()) if place[0] != name}
        if before is not None and chart is not None and before.leaders != chart.leaders:
            self.moved()
        change = befallen(before, chart)
        if change is not None:
            self.changed(name, change)

    async def _describe_settings(self, names: list[str], timeout_ms: float | None) -> dict[str, dict[str, tuple[str, int]]]:
        resource = DescribeConfigsRequest.DescribeConfigsResource
        wanted = [resource(resource_type=TOPIC_RESOURCE, resource_name=name, configuration_keys=None) for name in names]
        request = DescribeConfigsRequest(resources=wanted, include_synonyms=False, include_documentation=False)
        response = await self.line.ask(request, timeout_ms=timeout_ms)
        described = {}
        for result in response.results:
            error = errors.for_code(result.error_code)
            if error is errors.NoError:
                described[result.resource_name] = {each.name: (each.value or "", each.config_source) for each in result.configs}
            elif not issubclass(error, errors.UnknownTopicOrPartitionError):
                self.refused[result.resource_name] = error(result.error_message)
        return described


def metadata_request(names: Iterable[str]) -> MetadataRequest:
    """Asks for these topics; never makes one, as Kafka otherwise may."""
    topics = [MetadataRequest.MetadataRequestTopic(name=name) for name in names]
    return MetadataRequest(topics=topics, allow_auto_topic_creation=False, include_topic_authorized_operations=False)


def topic_there(topic: Any) -> bool:
    """Whether an answer about a topic says that it is there. :raises KafkaError: where it says neither that nor the other."""
    error = errors.for_code(topic.error_code)
    if error is errors.NoError or error is errors.LeaderNotAvailableError:
        return bool(topic.partitions)
    if error in (errors.UnknownTopicOrPartitionError, errors.InvalidTopicError):
        return False
    raise error(topic.name)


def layout_of(name: str, answer: Any) -> dict[int, PartitionLayout]:
    """A topic's partitions, as an answer to `metadata_request` has them. :raises KafkaError: as `topic_there`."""
    found = [topic for topic in answer.topics if topic.name == name and topic_there(topic)]
    return {
        each.partition_index: PartitionLayout(
            None if each.leader_id == NO_LEADER else each.leader_id, tuple(each.replica_nodes), tuple(sorted(each.isr_nodes))
        )
        for topic in found
        for each in sorted(topic.partitions, key=lambda each: each.partition_index)
    }


def befallen(before: Chart | None, now: Chart | None) -> Change | None:
    """What befell a topic between two looks."""
    if before is None:
        return None
    if now is None:
        return "gone"
    if before.id != now.id:
        return "other"
    return "grown" if len(now.leaders) > len(before.leaders) else None


def chart_of(topic: Any, settings: Mapping[str, tuple[str, int]]) -> Chart:
    """A topic as Kafka's answers have it."""
    leaders = {each.partition_index: each.leader_id for each in topic.partitions}
    replicas = [len(each.replica_nodes) for each in topic.partitions]
    stored = stored_topic(topic.name, uid(topic.topic_id), len(leaders), max(replicas, default=0), settings)
    epochs = {each.partition_index: each.leader_epoch for each in topic.partitions if each.leader_epoch is not None}
    numbers = range(len(leaders))
    return Chart(
        stored, topic.topic_id, tuple(leaders.get(number, NO_LEADER) for number in numbers), tuple(epochs.get(number, -1) for number in numbers)
    )


def uid(topic_id: uuid.UUID) -> str:
    """A topic's id as Kafka's own tools write it."""
    return base64.urlsafe_b64encode(topic_id.bytes).decode().rstrip("=")


def stored_topic(name: str, topic_uid: str, partitions: int, replication: int, settings: Mapping[str, tuple[str, int]]) -> StoredTopic:
    """A topic with the settings that Kafka described."""
    values = {key: value for key, (value, _) in settings.items()}
    own = {key: value for key, (value, source) in settings.items() if source == OWN_SETTING}
    cleanup: Cleanup = "compact" if "compact" in values.get("cleanup.policy", "delete") else "delete"
    ahead = values.get("message.timestamp.after.max.ms") or values.get("message.timestamp.difference.max.ms")
    return StoredTopic(
        name=name,
        uid=topic_uid,
        partitions=partitions,
        replication=replication,
        retention_ms=bound(values.get("retention.ms")),
        retention_bytes=bound(values.get("retention.bytes")),
        cleanup=cleanup,
        max_message_bytes=int(values.get("max.message.bytes") or 1_048_588),
        config=own,
        timestamp_ahead_ms=int(ahead) if ahead else 3_600_000,
    )


def bound(text: str | None) -> int | None:
    """A limit as Kafka writes it: -1 is none."""
    return None if not text or int(text) < 0 else int(text)
