"""The groups' places: Kafka's own committed offsets, by plain commit without membership."""

import re
import zlib
from collections.abc import Callable, Coroutine, Iterable, Mapping
from typing import Any

from kafka import errors
from kafka.protocol.admin import DeleteGroupsRequest
from kafka.protocol.consumer import OffsetCommitRequest, OffsetDeleteRequest, OffsetFetchRequest
from kafka.protocol.metadata import FindCoordinatorRequest

from psubd.errors import InUse, PsubdError, StorageTimeout, TooLarge
from psubd.model import Commit, TopicPartition
from psubd.storage.kafka.faults import GONE, MAY_BE_STORED, NO_COORDINATOR, RETRIABLE, TAKEN, Lost, Unsent, of_group, timeout, unavailable
from psubd.storage.kafka.line import Line

NO_GENERATION, NO_MEMBER = -1, ""
REQUEST_BYTES = 512 * 1024
"""Of places in one commit. Kafka answers UNKNOWN_SERVER_ERROR to 1,000 places with 4,096 characters each: they make one batch of its own topic."""

PLACE_BYTES = 160
"""What a place takes in Kafka beside its group, topic and metadata, rounded up."""

MAX_METADATA = 4096
OURS = re.compile(r"psubd[0-9]+;")
"""How the metadata of every commit of psubd's begins, in this format and in those to come (`psubd.delivery` writes it)."""


class Again(Exception):
    """The coordinator's answer says to ask again, perhaps another one."""


Places = Mapping[TopicPartition, Commit]
Failed = dict[TopicPartition, PsubdError]


class Groups:
    """Runs on the commit line. The calls of one group must not overlap (`backend` sees to it); those of different groups may. A ``deadline`` is of
    `time.monotonic`.

    The driver keeps a group's coordinator for ever and hands errors over as values; here the coordinator is looked up again when one says that
    it is not it any more, and what may pass is tried again until `storage_timeout_ms`.

    :ivar owned: Kafka groups whose commits are known to be psubd's.
    """

    def __init__(self, line: Line) -> None:
        self.line = line
        self.coordinators: dict[str, int] = {}
        self.owned: set[str] = set()
        self.requests = 0

    async def commit(self, group: str, places: Places, deadline: float) -> Failed:
        """Keep the places. What failed, with why: InUse where the group has members, or commits that psubd did not write."""
        failed: Failed = {place: too_long() for place, commit in places.items() if len(commit.metadata) > MAX_METADATA}
        sound = {place: commit for place, commit in places.items() if place not in failed}
        try:
            await self._own(group, deadline)
            for part in parts(group, sound):
                failed.update(await self._commit_part(group, part, deadline))
        except (PsubdError, Unsent, Lost, Again, errors.KafkaError) as error:
            told = timeout(error) if isinstance(error, PsubdError | Lost | Unsent) else of_group(error.__cause__ or error, group)
            return {**dict.fromkeys(sound, told), **failed}
        return failed

    def adopt(self, group: str) -> None:
        """Take the group from now on, whoever wrote its commits: somebody said so on purpose."""
        self.owned.add(group)

    async def committed(self, group: str, deadline: float) -> dict[TopicPartition, Commit]:
        """All places of the group. :raises InUse: where it has one that psubd did not write. :raises PsubdError:"""
        try:
            kept = await self._committed(group, deadline)
            if group not in self.owned:
                check_ours(group, kept)
            return kept
        except Again as refused:
            raise of_group(refused.__cause__ or refused, group) from refused
        except (Unsent, Lost) as failed:
            raise unavailable(failed) from failed
        except errors.KafkaError as refused:
            raise of_group(refused, group) from refused

    async def forget(self, group: str, topic: str | None, deadline: float) -> None:
        """Drop the group's places on the topic, or the whole group. :raises InUse: where it is somebody else's. :raises PsubdError:"""
        try:
            await self._own(group, deadline)
            kept = await self._committed(group, deadline)
            drop = [place for place in kept if topic is None or place.topic == topic]
            if drop and topic is not None:
                await self._persist(deadline, group, lambda node, left: self._delete_places(node, group, drop, left))
            elif topic is None:
                await self._persist(deadline, group, lambda node, left: self._delete_group(node, group, left))
                self.owned.discard(group)
                self.coordinators.pop(group, None)
        except (Unsent, Lost) as failed:
            raise timeout(failed) from failed
        except Again as refused:
            raise of_group(refused.__cause__ or refused, group) from refused
        except errors.KafkaError as refused:
            raise of_group(refused, group) from refused

    # --- whose group it is ---

    async def _own(self, group: str, deadline: float) -> None:
        """:raises InUse: where the group has a commit that psubd did not write."""
        if group in self.owned:
            return
        check_ours(group, await self._committed(group, deadline))
        self.owned.add(group)

    # --- one request each ---

    async def _commit_part(self, group: str, places: Places, deadline: float) -> Failed:
        left = dict(places)
        failed: Failed = {}

        async def attempt(node: int, left_ms: float) -> None:
            self.requests += 1
            response = await self._ask(commit_request(group, left), node, group, left_ms)
            unclear = None
            for place, error in answers(response):
                if error is errors.NoError:
                    left.pop(place, None)
                elif again(error):
                    unclear = error
                elif left.pop(place, None) is not None:
                    failed[place] = of_group(error(), group)
                if error in TAKEN:
                    self.owned.discard(group)  # whose places will be there once the members are gone is looked at anew
            if unclear is not None:
                raise Again from unclear()

        try:
            await self._persist(deadline, group, attempt)
        except (Unsent, Lost, Again) as late:
            failed.update({place: late_error(late, group) for place in left})
        return failed

    async def _committed(self, group: str, deadline: float) -> dict[TopicPartition, Commit]:
        found: dict[TopicPartition, Commit] = await self._persist(deadline, group, lambda node, left: self._fetch(node, group, left))
        return found

    async def _fetch(self, node: int, group: str, left_ms: float) -> dict[TopicPartition, Commit]:
        response = await self._ask(fetch_request(group), node, group, left_ms)
        answer = response.groups[0]
        judge(errors.for_code(answer.error_code))
        found = {}
        for topic in answer.topics:
            for each in topic.partitions:
                judge(errors.for_code(each.error_code))
                if each.committed_offset >= 0:
                    kept = Commit(each.committed_offset, each.metadata or "", each.committed_leader_epoch)
                    found[TopicPartition(topic.name, each.partition_index)] = kept
        return found

    async def _delete_places(self, node: int, group: str, places: Iterable[TopicPartition], left_ms: float) -> None:
        response = await self._ask(delete_request(group, places), node, group, left_ms)
        error = errors.for_code(response.error_code)
        if error is errors.GroupIdNotFoundError:
            return
        judge(error)
        for _, each in answers(response):
            if each not in GONE:
                judge(each)

    async def _delete_group(self, node: int, group: str, left_ms: float) -> None:
        response = await self._ask(DeleteGroupsRequest(groups_names=[group]), node, group, left_ms)
        for each in response.results:
            error = errors.for_code(each.error_code)
            if error is not errors.GroupIdNotFoundError:
                judge(error)

    # --- the coordinator ---

    async def _persist(self, deadline: float, group: str, attempt: Callable[[int, float], Coroutine[Any, Any, Any]]) -> Any:
        lost: Lost | None = None

        async def once(left_ms: float) -> Any:
            nonlocal lost
            node = await self._coordinator(group, left_ms)
            try:
                return await attempt(node, left_ms)
            except (Unsent, Lost, Again) as failed:
                self.coordinators.pop(group, None)
                lost = lost_in(failed) or lost
                raise

        try:
            return await self.line.persist(deadline, once, again=(Unsent, Lost, Again))
        except (Unsent, Again):
            if lost is not None:  # the last try was surely not made; an earlier one may have been
                raise lost from lost.__cause__
            raise

    async def _ask(self, request: Any, node: int, group: str, left_ms: float) -> Any:
        return await self.line.ask(request, node, place_of(group), left_ms)

    async def _coordinator(self, group: str, left_ms: float) -> int:
        known = self.coordinators.get(group)
        if known is not None:
            return known
        response = await self.line.ask(coordinator_request(group), place=place_of(group), timeout_ms=left_ms)
        found = response.coordinators[0] if response.API_VERSION >= 4 else response
        judge(errors.for_code(found.error_code))
        self.coordinators[group] = node = int(found.node_id)
        return node


def check_ours(group: str, kept: Places) -> None:
    """:raises InUse: where one of the commits is not psubd's."""
    foreign = sorted(place for place, commit in kept.items() if OURS.match(commit.metadata) is None)
    if foreign:
        where = f"{foreign[0].topic!r} partition {foreign[0].partition}"
        raise InUse(f"the Kafka group {group!r} has a commit on {where} that psubd did not write; set its offsets on purpose to take it over")


def place_of(group: str) -> int:
    """The same connection for all that a group says, so that it stays in order."""
    return zlib.crc32(group.encode())


def again(error: type[BaseException]) -> bool:
    return error in NO_COORDINATOR or (issubclass(error, RETRIABLE) and error not in GONE)


def judge(error: type[errors.KafkaError]) -> None:
    """:raises Again: where it may pass. :raises KafkaError: where it will not."""
    if error is errors.NoError:
        return
    if again(error):
        raise Again from error()
    raise error()


def lost_in(failed: BaseException) -> Lost | None:
    """The try that may have been carried out."""
    if isinstance(failed, Lost):
        return failed
    if isinstance(failed.__cause__, MAY_BE_STORED):
        lost = Lost("the coordinator does not say what became of it")
        lost.__cause__ = failed.__cause__
        return lost
    return None


def late_error(late: BaseException, group: str) -> PsubdError:
    """Of a commit whose time is up."""
    if isinstance(late, Lost):
        return StorageTimeout(f"Kafka did not answer in time: the place of group {group!r} may be kept or not")
    return of_group(late.__cause__ or late, group)


def too_long() -> PsubdError:
    return TooLarge(f"the place's metadata has more than {MAX_METADATA} characters")


def parts(group: str, places: Places) -> list[dict[TopicPartition, Commit]]:
    """The places cut into what fits into one request each."""
    found: list[dict[TopicPartition, Commit]] = [{}]
    size = 0
    for place, commit in places.items():
        more = PLACE_BYTES + len(group) + len(place.topic) + len(commit.metadata)
        if size + more > REQUEST_BYTES and found[-1]:
            found.append({})
            size = 0
        found[-1][place] = commit
        size += more
    return found if found[0] else []


def answers(response: Any) -> list[tuple[TopicPartition, type[errors.KafkaError]]]:
    """Each partition's part of an answer about a group."""
    return [
        (TopicPartition(topic.name, each.partition_index), errors.for_code(each.error_code)) for topic in response.topics for each in topic.partitions
    ]


def commit_request(group: str, places: Places) -> OffsetCommitRequest:
    """Up to version 8: from 10 on it goes by topic ids."""
    topic = OffsetCommitRequest.OffsetCommitRequestTopic
    by_topic: dict[str, list[Any]] = {}
    for place, commit in places.items():
        part = topic.OffsetCommitRequestPartition(
            partition_index=place.partition,
            committed_offset=commit.offset,
            committed_leader_epoch=commit.log_epoch,
            committed_metadata=commit.metadata,
        )
        by_topic.setdefault(place.topic, []).append(part)
    return OffsetCommitRequest(
        group_id=group,
        generation_id_or_member_epoch=NO_GENERATION,
        member_id=NO_MEMBER,
        group_instance_id=None,
        retention_time_ms=-1,
        topics=[topic(name=name, partitions=each) for name, each in by_topic.items()],
        max_version=8,
    )


def fetch_request(group: str) -> OffsetFetchRequest:
    each = OffsetFetchRequest.OffsetFetchRequestGroup
    return OffsetFetchRequest(groups=[each(group_id=group, topics=None)], require_stable=False, min_version=8, max_version=8)


def delete_request(group: str, places: Iterable[TopicPartition]) -> OffsetDeleteRequest:
    topic = OffsetDeleteRequest.OffsetDeleteRequestTopic
    by_topic: dict[str, list[Any]] = {}
    for place in places:
        by_topic.setdefault(place.topic, []).append(topic.OffsetDeleteRequestPartition(partition_index=place.partition))
    return OffsetDeleteRequest(group_id=group, topics=[topic(name=name, partitions=each) for name, each in by_topic.items()])


def coordinator_request(group: str) -> FindCoordinatorRequest:
    return FindCoordinatorRequest(key=group, key_type=0, coordinator_keys=[group], max_version=4)
