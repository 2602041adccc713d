"""Registered streams: ``/api/v1/topics``."""

from collections.abc import Sequence

import msgspec

from psubd.errors import BadBody, Exists, InUse, NotFound, PsubdError, StorageTimeout, StorageUnavailable, TopicMissing, VersionMismatch
from psubd.interfaces import IRegistrar, IStorage, Route
from psubd.manager.doc import ADMIN, IF_MATCH, NO_CONTENT, Doc, Parameter, Reply
from psubd.manager.forms import NewTopic, TopicChange
from psubd.manager.guard import Guard
from psubd.manager.listing import PAGING, Page, keyed
from psubd.manager.records import Records
from psubd.manager.views import TopicView
from psubd.manager.visit import Visit, answer, no_content
from psubd.model import Answer, StoredTopic, Topic, TopicSpec

TAG = "topics"
LIST, ONE = "/api/v1/topics", "/api/v1/topics/{id}"
STORAGE_FAILS = (StorageUnavailable, StorageTimeout)
GONE = "gone from the storage"


class Topics:
    def __init__(self, guard: Guard, registrar: IRegistrar, records: Records, storage: IStorage) -> None:
        self._guard, self._registrar, self._records, self._storage = guard, registrar, records, storage

    def routes(self) -> list[Route]:
        return [*self._collection(), *self._item()]

    def _collection(self) -> list[Route]:
        made = Reply("Made, or adopted as it stands in the storage: then `adopted` is true.", TopicView, headers=("etag", "location"))
        create = Doc(
            TAG,
            "Register a topic: make it in the storage, or adopt it",
            {201: made},
            ADMIN,
            NewTopic,
            refusals=(NotFound, Exists, InUse, BadBody, *STORAGE_FAILS),
        )
        listing = Doc(TAG, "The registered topics", {200: Reply("A page of topics.", Page[TopicView])}, parameters=PAGING)
        return [
            self._guard.route("POST", LIST, self.create, "createTopic", create),
            self._guard.route("GET", LIST, self.index, "listTopics", listing),
        ]

    def _item(self) -> list[Route]:
        one = Reply("The topic.", TopicView, headers=("etag",))
        show = Doc(TAG, "One topic, as registered and as it stands in the storage", {200: one}, refusals=(NotFound,))
        alter = Doc(
            TAG,
            "Change a topic; what is absent stays",
            {200: one},
            ADMIN,
            TopicChange,
            (IF_MATCH,),
            (NotFound, BadBody, TopicMissing, VersionMismatch, *STORAGE_FAILS),
            conditional=True,
        )
        delete = Doc(
            TAG,
            "Delete a topic with its data; an adopted one is forgotten, and its data stays",
            {204: NO_CONTENT},
            ADMIN,
            parameters=(
                Parameter("force", bool, "Also where another application is bound, or it is a dead-letter topic: these bindings change too."),
                Parameter("data", bool, "Delete the data of an adopted topic too."),
                IF_MATCH,
            ),
            refusals=(NotFound, InUse, VersionMismatch, *STORAGE_FAILS),
            conditional=True,
        )
        return [
            self._guard.route("GET", ONE, self.show, "getTopic", show),
            self._guard.route("PATCH", ONE, self.alter, "changeTopic", alter),
            self._guard.route("DELETE", ONE, self.delete, "deleteTopic", delete),
        ]

    async def create(self, visit: Visit) -> Answer:
        form: NewTopic = visit.form
        given = form.partitions is not msgspec.UNSET
        spec = TopicSpec(
            name=form.id,
            partitions=1 if form.partitions is msgspec.UNSET else form.partitions,
            replication=form.replication,
            retention_ms=form.retention_ms,
            retention_bytes=form.retention_bytes,
            cleanup=form.cleanup,
            config=form.config,
        )
        elastic = None if form.elastic is None else form.elastic.value()
        topic = await self._registrar.create_topic(spec, form.owner, elastic, given, visit.actor)
        return await self._answer(topic, 201, f"{LIST}/{form.id}")

    async def index(self, visit: Visit) -> Answer:
        keys, following = visit.page(keyed(self._records.names(Topic)), TAG)
        found = self._records.some(Topic, [name for (name,) in keys])
        stored, trouble = await self._stored([topic.id for topic, _ in found])
        return answer(Page([view(topic, version, stored, trouble) for topic, version in found], following))

    async def show(self, visit: Visit, id: str) -> Answer:
        topic, _ = self._records.get(Topic, id)
        return await self._answer(topic)

    async def alter(self, visit: Visit, id: str) -> Answer:
        form: TopicChange = visit.form
        _, version = self._records.get(Topic, id)
        topic = await self._registrar.alter_topic(id, form.changes(), visit.actor, visit.if_match(version))
        return await self._answer(topic)

    async def delete(self, visit: Visit, id: str) -> Answer:
        _, version = self._records.get(Topic, id)
        await self._registrar.delete_topic(id, visit.flag("force"), visit.flag("data"), visit.actor, visit.if_match(version))
        return no_content()

    async def _answer(self, topic: Topic, status: int = 200, location: str | None = None) -> Answer:
        found = self._records.find(Topic, topic.id)
        version = 1 if found is None else found[1]
        stored, trouble = await self._stored([topic.id])
        return answer(view(topic, version, stored, trouble), status, version=version, location=location)

    async def _stored(self, names: Sequence[str]) -> tuple[dict[str, StoredTopic], str]:
        """How the topics stand in the storage, and why one is not told. What is registered is shown with the storage away, too."""
        if not names:
            return {}, GONE
        try:
            return await self._storage.describe(names), GONE
        except PsubdError as refused:
            return {}, refused.detail


def view(topic: Topic, version: int, stored: dict[str, StoredTopic], trouble: str) -> TopicView:
    found = stored.get(topic.id)
    return TopicView.of(topic, version, found, trouble if found is None else None)
