"""``/offsets`` of an instance: what is done, and where its group stands."""

from collections.abc import Sequence

from twisted.internet.defer import Deferred

from psubd.endpoints.acks import unhurt
from psubd.endpoints.confluent import bodies, media
from psubd.endpoints.confluent.instances import Admit, Caller, called, told
from psubd.errors import PartitionMissing
from psubd.interfaces import IConsumers, IExchange
from psubd.model import Answer, Mark


class Committing:
    """Both versions of the API: they name the last message that is done where the storage keeps the next one's offset."""

    def __init__(self, admit: Admit, consumers: IConsumers) -> None:
        self._admit, self._consumers = admit, consumers

    def commit(self, exchange: IExchange, group: str, instance: str) -> Deferred[Answer]:
        """What the body names, or without one what was wholly written to the client. Answered when it is kept, also with ``async=true``, and
        a failure is told. Fails with IllegalState, PartitionMissing, OffsetOutOfRange."""
        caller = called(self._admit, exchange, group, instance)
        media.sent(exchange)
        return unhurt(Deferred.fromCoroutine(self._commit(exchange, caller, bodies.marks_of(exchange.body))))

    async def _commit(self, exchange: IExchange, caller: Caller, marks: Sequence[Mark] | None) -> Answer:
        dialect = media.dialect_of(exchange.headers)
        if dialect is None:
            dialect = (await self._consumers.look(caller.grant, caller.group, caller.instance)).spec.dialect
        answer = told(exchange, [], dialect)
        kept = await self._consumers.commit(caller.grant, caller.group, caller.instance, marks)
        return answer if dialect == 2 else told(exchange, [in_the_first(mark) for mark in kept], dialect)

    def committed(self, exchange: IExchange, group: str, instance: str) -> Deferred[Answer]:
        """The places of the partitions that the body names; without one that is there, it is left out."""
        caller = called(self._admit, exchange, group, instance)
        media.sent(exchange)
        if not exchange.body.strip():
            raise PartitionMissing('name the partitions in the body: {"partitions": [{"topic", "partition"}]}')
        asked = self._consumers.committed(caller.grant, caller.group, instance, bodies.places_of(exchange.body))
        return asked.addCallback(lambda marks: told(exchange, {"offsets": [in_the_second(mark) for mark in marks if mark.offset >= 0]}))


def in_the_first(mark: Mark) -> dict[str, object]:
    """Offsets of the last message, not of the next one."""
    consumed = mark.offset - 1 if mark.consumed is None else mark.consumed
    return {"topic": mark.at.topic, "partition": mark.at.partition, "consumed": consumed, "committed": mark.offset - 1}


def in_the_second(mark: Mark) -> dict[str, object]:
    """As the storage keeps it."""
    return {"topic": mark.at.topic, "partition": mark.at.partition, "offset": mark.offset, "metadata": mark.metadata}
