"""What a tenant sees and steers of its own (contract, end of section 3): whoami, topics, groups. Never another's."""

from collections.abc import Mapping, Sequence
from typing import Annotated, Any, Literal

import msgspec
from msgspec import UNSET, Meta, UnsetType
from twisted.internet.defer import Deferred, DeferredList

from psubd import fields
from psubd.endpoints import media
from psubd.endpoints.answers import json_answer
from psubd.endpoints.credentials import Callers
from psubd.endpoints.pub import refuse_query
from psubd.errors import NotFound, TopicMissing, TopicNotBound
from psubd.interfaces import IExchange, IGate, IStorage, ISubscriber
from psubd.model import Answer, Binding, Bounds, Grant, GroupView, ResetTo, StoredTopic

MAX_RESET_BODY = 1024 * 1024
"""10,000 partitions with their offsets, with room."""
LIMIT, MOST = 100, 1000
"""Items of a page, as on the manager port."""
PAGE = {"limit": False, "cursor": False}

Number = Annotated[int, Meta(ge=0, le=fields.INT64)]
Partition = Annotated[int, Meta(ge=0, le=2**31 - 1)]


class To(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """``{"timestamp": ms}`` or ``{"offsets": {"0": 41}}``."""

    timestamp: Number | UnsetType = UNSET
    offsets: Annotated[dict[Partition, Number], Meta(min_length=1, max_length=10_000)] | UnsetType = UNSET

    def __post_init__(self) -> None:
        if (self.timestamp is UNSET) == (self.offsets is UNSET):
            raise ValueError("`to` holds either `timestamp` or `offsets`")


class Reset(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """Where the group's cursor goes; ``partitions`` None: all, or those that ``to.offsets`` names."""

    topic: str
    to: Literal["earliest", "latest"] | To
    partitions: Annotated[list[Partition], Meta(min_length=1, max_length=10_000)] | None = None

    def place(self) -> ResetTo:
        """As the subscriber wants it."""
        if not isinstance(self.to, To):
            return "earliest" if self.to == "earliest" else "latest"
        return self.to.offsets if self.to.offsets is not UNSET else ("timestamp", int(self.to.timestamp or 0))


class Tenant:
    """The routes with either credential, and the two that need the subkey."""

    def __init__(self, callers: Callers, gate: IGate, subscriber: ISubscriber, storage: IStorage) -> None:
        self._callers = callers
        self._gate = gate
        self._subscriber = subscriber
        self._storage = storage

    # --- who ----------------------------------------------------------------------------------------------------------------------

    def whoami(self, exchange: IExchange) -> Answer:
        """The application, the credential that was shown, the bindings."""
        grant = self._callers.either(exchange)
        refuse_query(exchange)
        application = grant.application
        return json_answer(
            {
                "application": application.id,
                "name": application.name,
                "credential": "secret" if grant.kind == "publish" else "subkey",
                "until": grant.until_ms,
                "bindings": [binding_members(grant.bindings[topic]) for topic in bound(grant)],
            }
        )

    # --- topics -------------------------------------------------------------------------------------------------------------------

    def topics(self, exchange: IExchange) -> Deferred[Answer]:
        """The bound topics, a page of them."""
        grant = self._callers.either(exchange)
        chosen, following = page(bound(grant), exchange.raw_query)
        return Deferred.fromCoroutine(self._topics(grant, chosen, following))

    async def _topics(self, grant: Grant, chosen: Sequence[str], following: str | None) -> Answer:
        found = await self._look(chosen)
        return json_answer({"items": [topic_members(grant.bindings[topic], found.get(topic)) for topic in chosen], "next": following})

    def topic(self, exchange: IExchange, topic: str) -> Deferred[Answer]:
        """One bound topic. :raises TopicNotBound: whether it exists or not. Fails with TopicMissing."""
        grant = self._callers.either(exchange)
        refuse_query(exchange)
        binding = grant.bindings.get(topic)
        if binding is None:
            raise TopicNotBound("the application is not bound to this topic")
        return Deferred.fromCoroutine(self._topic(binding))

    async def _topic(self, binding: Binding) -> Answer:
        found = (await self._look([binding.topic])).get(binding.topic)
        if found is None:
            raise TopicMissing(f"topic {binding.topic} is bound, but it is gone from the storage")
        return json_answer(topic_members(binding, found))

    async def _look(self, topics: Sequence[str]) -> dict[str, dict[int, Bounds]]:
        """The partitions' bounds of those topics that are in the storage, as they were registered."""
        stored = await self._storage.describe(topics)
        there = [topic for topic in topics if self._is_registered(stored.get(topic))]
        results: Any = await DeferredList([self._storage.bounds(topic) for topic in there], consumeErrors=True)
        found: dict[str, dict[int, Bounds]] = {}
        for topic, (done, result) in zip(there, results, strict=True):
            if done:
                found[topic] = result
            elif not result.check(TopicMissing):
                raise result.value
        return found

    def _is_registered(self, stored: StoredTopic | None) -> bool:
        registered = None if stored is None else self._gate.topic(stored.name)
        return stored is not None and registered is not None and registered.uid == stored.uid

    # --- groups -------------------------------------------------------------------------------------------------------------------

    def groups(self, exchange: IExchange) -> Deferred[Answer]:
        """The application's groups, a page of them."""
        application = self._callers.either(exchange).application.id
        read_page(exchange.raw_query)

        def paged(views: list[GroupView]) -> Answer:
            by_name = {view.group: view for view in views}
            chosen, following = page(sorted(by_name), exchange.raw_query)
            return json_answer({"items": [group_members(by_name[name]) for name in chosen], "next": following})

        return self._subscriber.groups(application).addCallback(paged)

    def group(self, exchange: IExchange, group: str) -> Deferred[Answer]:
        """One group of the application. Fails with NotFound."""
        application = self._callers.either(exchange).application.id
        refuse_query(exchange)
        return self._subscriber.group(full_name(group, application)).addCallback(lambda view: json_answer(group_members(view)))

    def reset(self, exchange: IExchange, group: str) -> Deferred[Answer]:
        """Move the group's cursor; ``dry_run=true`` says where it would go and changes nothing."""
        grant = self._callers.subscriber(exchange)
        name = full_name(group, grant.application.id)
        sent = fields.query(exchange.raw_query, {"dry_run": False})
        dry_run = "dry_run" in sent and fields.boolean(sent["dry_run"][0], "dry_run")
        media.require_json(exchange)
        form = fields.json_body(exchange.body, Reset)
        binding = grant.bindings.get(form.topic)
        if binding is None or not binding.sub:
            raise TopicNotBound("the application is not bound to this topic for sub")
        return Deferred.fromCoroutine(self._reset(name, form, binding, dry_run, actor(grant, exchange)))

    async def _reset(self, group: str, form: Reset, binding: Binding, dry_run: bool, who: str) -> Answer:
        to = form.place()
        if not binding.replay:
            await self._refuse_replay(group, form, to, who)
        offsets = await self._subscriber.reset(group, form.topic, form.partitions, to, dry_run, who)
        return json_answer({"offsets": offsets})

    async def _refuse_replay(self, group: str, form: Reset, to: ResetTo, who: str) -> None:
        """:raises TopicNotBound: without ``replay`` the cursor would go back to what the application may not read any more."""
        if to == "latest":
            return
        aims = await self._subscriber.reset(group, form.topic, form.partitions, to, True, who)
        stands = {item.partition: item.committed for item in await self._items(group) if item.topic == form.topic}
        if any(partition not in stands or offset < stands[partition] for partition, offset in aims.items()):
            raise TopicNotBound("the binding does not grant replay: the cursor can be moved forward only, or to latest")

    async def _items(self, group: str) -> Sequence[Any]:
        try:
            return (await self._subscriber.group(group)).items
        except NotFound:
            return ()

    def forget(self, exchange: IExchange, group: str) -> Deferred[Answer]:
        """Delete the group with its cursors. Fails with NotFound."""
        grant = self._callers.subscriber(exchange)
        refuse_query(exchange)
        name = full_name(group, grant.application.id)
        return self._subscriber.forget_group(name, actor(grant, exchange)).addCallback(lambda _: Answer(status=204, headers=[]))


def actor(grant: Grant, exchange: IExchange) -> str:
    """Who did it, for the audit."""
    return f"application {grant.application.id} from {exchange.client}"


def bound(grant: Grant) -> list[str]:
    """The topics that the application is bound to, sorted. A binding grants at least one of pub and sub."""
    return sorted(grant.bindings)


def full_name(group: str, application: str) -> str:
    """A group as its path names it, in full or by its short name. Always one of the application's own.

    :raises NotFound: a name that no group can have.
    """
    own = f"{application}."
    short = group.removeprefix(own)
    if group == application:
        return group
    if fields.GROUP_NAME.fullmatch(short) is None:
        raise NotFound("the application has no such group")
    return own + short


def binding_members(binding: Binding) -> Mapping[str, Any]:
    """A binding as the tenant sees it: what the manager's PUT takes, without what psubd keeps for itself."""
    hidden = ("application", "serial", "mark", "version")
    return {name: value for name, value in msgspec.structs.asdict(binding).items() if name not in hidden}


def topic_members(binding: Binding, partitions: Mapping[int, Bounds] | None) -> Mapping[str, Any]:
    """A topic as the tenant sees it; ``partitions`` null: gone from the storage."""
    found = None
    if partitions is not None:
        found = [{"partition": number, "first": partitions[number].first, "end": partitions[number].end} for number in sorted(partitions)]
    return {"topic": binding.topic, "pub": binding.pub, "sub": binding.sub, "partitions": found}


def group_members(view: GroupView) -> Mapping[str, Any]:
    """A group as the tenant sees it: which node serves it is none of its business."""
    items = [{name: value for name, value in msgspec.structs.asdict(item).items() if name != "node"} for item in view.items]
    ages = [item.oldest_ms for item in view.items if item.oldest_ms is not None]
    return {"group": view.group, "lag": sum(item.lag for item in view.items), "oldest_ms": max(ages, default=None), "items": items}


def read_page(raw_query: bytes) -> tuple[int, str]:
    """How many items, and the name behind which the page begins. :raises BadParameter:"""
    sent = fields.query(raw_query, PAGE)
    limit = fields.integer(sent["limit"][0], "limit", 1, MOST) if "limit" in sent else LIMIT
    return limit, sent["cursor"][0] if "cursor" in sent else ""


def page(names: Sequence[str], raw_query: bytes) -> tuple[list[str], str | None]:
    """A page of sorted names, and the cursor of the next: the last name given, so that what comes and goes meanwhile moves nothing else.

    :raises BadParameter:
    """
    limit, after = read_page(raw_query)
    rest = [name for name in names if name > after]
    return rest[:limit], rest[limit - 1] if len(rest) > limit else None
