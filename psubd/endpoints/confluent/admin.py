"""``POST /admin/topics``, as the Strimzi bridge has it: an application makes a topic of its own."""

from typing import Annotated

import msgspec
from twisted.internet.defer import Deferred

from psubd import fields
from psubd.endpoints.acks import unhurt
from psubd.endpoints.confluent import bodies, media
from psubd.endpoints.confluent.callers import Guests
from psubd.endpoints.confluent.faults import Incomplete
from psubd.endpoints.confluent.settings import ConfluentSettings
from psubd.endpoints.tenant import actor
from psubd.errors import Exists, Forbidden
from psubd.interfaces import IExchange, IGate, IRegistrar, IStorage
from psubd.model import Answer, Binding, Grant, TopicSpec

MOST_PARTITIONS = 256
"""Of a topic that an application makes by itself; the manager makes larger ones."""


class Form(msgspec.Struct, frozen=True):
    topic_name: str
    partitions_count: Annotated[int, msgspec.Meta(ge=1, le=MOST_PARTITIONS)] | None = None
    replication_factor: Annotated[int, msgspec.Meta(ge=1, le=1000)] | None = None


read_form = msgspec.json.Decoder(Form).decode


class TopicMaking:
    """The application owns the topic, and is bound to it both ways, from its first message on. One that exists, registered or only in the storage, is
    never taken: what is in it belongs to somebody. What was begun goes on where the client goes away: half of it could not be made good by asking
    again."""

    def __init__(self, callers: Guests, gate: IGate, registrar: IRegistrar, storage: IStorage, settings: ConfluentSettings) -> None:
        self._callers, self._gate, self._registrar, self._storage = callers, gate, registrar, storage
        self._most = settings.application_topics

    def make(self, exchange: IExchange) -> Deferred[Answer]:
        grant = self._callers.publisher(exchange)
        media.sent(exchange)
        answers = media.answer_type(exchange, media.spoken(exchange.headers))
        form = read(exchange.body)
        self._check_room(grant)
        return unhurt(Deferred.fromCoroutine(self._make(grant, form, actor(grant, exchange), answers)))

    def _check_room(self, grant: Grant) -> None:
        """As the registry's change judges it again, before anything is asked of the storage. :raises Forbidden:"""
        own = sum(topic is not None and topic.owner == grant.application.id for topic in map(self._gate.topic, grant.bindings))
        if own >= self._most:
            why = f"it owns {own}, and application_topics allows {self._most}" if self._most else "application_topics is 0 here"
            raise Forbidden(f"the application may not make a topic: {why}; ask an administrator for it")

    async def _make(self, grant: Grant, form: Form, actor: str, answers: str) -> Answer:
        name, owner = form.topic_name, grant.application.id
        if name in await self._storage.describe([name]):
            raise Exists(f"topic {name} exists; choose another name, or ask an administrator to bind the application to it")
        spec = TopicSpec(name, form.partitions_count or 1, form.replication_factor)
        await self._registrar.create_topic(spec, owner, None, True, actor, adopt=False, most=self._most)
        binding = Binding(application=owner, topic=name, serial=0, pub=True, sub=True, start="earliest")
        await self._registrar.put_binding(binding, actor, None)
        return Answer(status=201, headers=[media.line(answers)])


def read(body: bytes) -> Form:
    """:raises Incomplete: :raises BadBody:"""
    form = bodies.shaped(read_form, body, '{"topic_name": ..., "partitions_count": 1, "replication_factor": 1}')
    if not fields.topic_id(form.topic_name):
        raise Incomplete("topic_name: letters, digits, . _ - only, at most 200, not beginning with __")
    return form
