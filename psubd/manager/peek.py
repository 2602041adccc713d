"""A look at a topic's messages: ``/api/v1/topics/{id}/messages``. Audited, since an operator sees a tenant's payload."""

from typing import Literal

import msgspec

from psubd.errors import BadParameter, NotFound, OffsetOutOfRange, StorageTimeout, StorageUnavailable, TopicMissing
from psubd.interfaces import IStorage, Route
from psubd.manager.doc import ADMIN, Doc, Parameter, Reply
from psubd.manager.forms import Offset, Partition
from psubd.manager.guard import Guard
from psubd.manager.journal import Journal
from psubd.manager.listing import LIMIT, MOST, PAGING
from psubd.manager.records import Records
from psubd.manager.visit import Visit, answer
from psubd.model import Answer, Message, Slice, StoredTopic, Topic
from psubd.shown import header_members, member, payload

MOST_BYTES = 1_048_576
"""Payload in one answer (contract, section 5); one message always fits."""

MAX_PARTITION = 2**31 - 1
MAX_OFFSET = 2**63 - 1


class Base64(msgspec.Struct, frozen=True):
    """Bytes that are not UTF-8 text."""

    base64: str


Text = str | Base64


class MessageView(msgspec.Struct, frozen=True):
    """As a subscriber gets it, without ``attempt``. A header that occurs more than once has a list."""

    topic: str
    partition: int
    offset: int
    timestamp: int
    key: Text | None
    value: str | None
    encoding: Literal["utf-8", "base64"]
    headers: dict[str, Text | list[Text | None] | None]


class Look(msgspec.Struct, frozen=True):
    """``next``: the offset to look on from. ``first`` and ``end``: the partition's bounds at that moment."""

    items: list[MessageView]
    next: int
    first: int
    end: int


class Peek:
    def __init__(self, guard: Guard, journal: Journal, records: Records, storage: IStorage) -> None:
        self._guard, self._journal, self._records, self._storage = guard, journal, records, storage

    def routes(self) -> list[Route]:
        doc = Doc(
            "topics",
            "Look at a partition's messages; at most 1000 and 1 MiB. No group moves; who looked is in the events",
            {200: Reply("The messages.", Look)},
            ADMIN,
            parameters=(
                Parameter("partition", Partition, "The partition; 0 where it is not given."),
                Parameter("offset", Offset, "Where to begin; before the log's start, and where it is not given: at its start."),
                PAGING[0],
            ),
            refusals=(NotFound, TopicMissing, OffsetOutOfRange, StorageUnavailable, StorageTimeout),
        )
        return [self._guard.route("GET", "/api/v1/topics/{id}/messages", self.look, "peekMessages", doc, head=False)]

    async def look(self, visit: Visit, id: str) -> Answer:
        partition = visit.number("partition", 0, MAX_PARTITION, 0)
        offset = visit.number("offset", 0, MAX_OFFSET, 0)
        limit = visit.number("limit", 1, MOST, LIMIT)
        self._records.get(Topic, id)
        self._journal.look(visit.actor, f"topic.peeked {id} partition {partition} from offset {offset}, at most {limit}")
        read = await self._read(id, partition, offset, limit)
        if offset > read.end:
            raise OffsetOutOfRange(f"offset: {offset} is past the end of the log, {read.end}")
        items = [message_view(id, partition, message) for message in read.messages]
        return answer(Look(items, read.next_offset, read.first, read.end))

    async def _read(self, id: str, partition: int, offset: int, limit: int) -> Slice:
        """:raises BadParameter: the topic is there, the partition is not. :raises PsubdError: what the storage failed with."""
        try:
            found: Slice = await self._storage.read(id, partition, offset, limit, MOST_BYTES)
        except TopicMissing:
            there: StoredTopic | None = (await self._storage.describe([id])).get(id)
            if there is None or partition < there.partitions:
                raise
            raise BadParameter(f"partition: topic {id} has no partition {partition}; it has 0 to {there.partitions - 1}") from None
        return found


def message_view(topic: str, partition: int, message: Message) -> MessageView:
    value, encoding = payload(message.value)
    return MessageView(topic, partition, message.offset, message.timestamp, member(message.key), value, encoding, header_members(message.headers))
