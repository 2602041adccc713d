"""Cursors: ``/api/v1/groups``. The rules are the subscriber's."""

from collections.abc import Sequence
from typing import Any

import msgspec
from msgspec import UNSET
from twisted.internet.defer import Deferred, DeferredList

from psubd.errors import (
    BadParameter,
    InUse,
    NotFound,
    RegistryUnavailable,
    StorageTimeout,
    StorageUnavailable,
    TooManyGroups,
    TopicMissing,
    TopicNotBound,
)
from psubd.fields import application_id, topic_id
from psubd.interfaces import IRedriver, ISubscriber, Route
from psubd.manager.bindings import check_filters
from psubd.manager.doc import ADMIN, NO_CONTENT, Doc, Parameter, Reply
from psubd.manager.forms import ApplicationId, Place, Redrive, Reset
from psubd.manager.guard import Guard
from psubd.manager.listing import PAGING, Page, filters, keyed
from psubd.manager.records import Records
from psubd.manager.visit import Visit, answer, no_content
from psubd.model import Answer, Group, GroupView, Redriven, ResetTo

TAG = "groups"
LIST, ONE = "/api/v1/groups", "/api/v1/groups/{group}"
FAILS = (StorageUnavailable, StorageTimeout, RegistryUnavailable)
AT_ONCE = 16
"""Groups of one page that are asked for together: each asks the storage."""


class NewOffsets(msgspec.Struct, frozen=True):
    """The group's new place by partition."""

    offsets: dict[int, int]


class Groups:
    def __init__(self, guard: Guard, subscriber: ISubscriber, redriver: IRedriver, records: Records) -> None:
        self._guard, self._subscriber, self._redriver, self._records = guard, subscriber, redriver, records

    def routes(self) -> list[Route]:
        route = self._guard.route
        listing = Doc(
            TAG,
            "The groups, with their place in each partition",
            {200: Reply("A page of groups.", Page[GroupView])},
            parameters=(Parameter("application", ApplicationId, "Only this application's."), *PAGING),
            refusals=FAILS,
        )
        reset = Doc(
            TAG,
            "Move a group's cursor, in use or not; one that does not exist is made there, one that somebody else wrote in the storage is taken over",
            {200: Reply("The new offsets by partition.", NewOffsets)},
            ADMIN,
            Reset,
            (Parameter("dry_run", bool, "Say where it would go, and change nothing."),),
            (NotFound, BadParameter, TopicNotBound, TopicMissing, InUse, TooManyGroups, *FAILS),
        )
        redrive = Doc(
            TAG,
            "Publish a group's dead letters to where they came from again, for that group only; each once",
            {200: Reply("How many were moved; which were left where they lie, and why.", Redriven)},
            ADMIN,
            Redrive,
            refusals=(NotFound, TopicMissing, *FAILS),
        )
        show = Doc(TAG, "One group", {200: Reply("The group.", GroupView)}, refusals=(NotFound, *FAILS))
        delete = Doc(TAG, "Delete a group and its cursors", {204: NO_CONTENT}, ADMIN, refusals=(NotFound, *FAILS))
        return [
            route("GET", LIST, self.index, "listGroups", listing),
            route("GET", ONE, self.show, "getGroup", show),
            route("DELETE", ONE, self.delete, "deleteGroup", delete),
            route("PUT", f"{ONE}/offsets", self.reset, "resetGroup", reset),
            route("POST", f"{ONE}/redrive", self.redrive, "redriveGroup", redrive),
        ]

    async def index(self, visit: Visit) -> Answer:
        application = visit.query.get("application")
        check_filters(application)
        names = [name for name in self._records.names(Group) if application in (None, owner(name))]
        keys, following = visit.page(keyed(names), f"{TAG}?{filters(application=application)}")
        return answer(Page(await self._views([name for (name,) in keys]), following))

    async def _views(self, names: Sequence[str]) -> list[GroupView]:
        """The groups' states; one that was deleted meanwhile is left out."""
        views: list[GroupView] = []
        for begin in range(0, len(names), AT_ONCE):
            asked = [optional(self._subscriber.group(name)) for name in names[begin : begin + AT_ONCE]]
            views.extend([view for view in await together(asked) if view is not None])
        return views

    async def show(self, visit: Visit, group: str) -> Answer:
        check_name(group)
        return answer(await self._subscriber.group(group))

    async def delete(self, visit: Visit, group: str) -> Answer:
        check_name(group)
        await self._subscriber.forget_group(group, visit.actor)
        return no_content()

    async def reset(self, visit: Visit, group: str) -> Answer:
        form: Reset = visit.form
        check_name(group)
        offsets = await self._subscriber.reset(group, form.topic, form.partitions, place(form.to), visit.flag("dry_run"), visit.actor)
        return answer(NewOffsets(offsets))

    async def redrive(self, visit: Visit, group: str) -> Answer:
        form: Redrive = visit.form
        check_name(group)
        return answer(await self._redriver.redrive(group, form.topic, form.limit, visit.actor))


def place(to: str | Place) -> ResetTo:
    """Where a reset goes, as the subscriber wants it."""
    if not isinstance(to, Place):
        return "earliest" if to == "earliest" else "latest"
    return dict(to.offsets) if to.offsets is not UNSET else ("timestamp", int(to.timestamp or 0))


def owner(group: str) -> str:
    """The application of a group: the part before the first dot."""
    return group.partition(".")[0]


def check_name(group: str) -> None:
    """:raises NotFound: a full name that no group can have."""
    application, dot, rest = group.partition(".")
    if not application_id(application) or (dot and not topic_id(rest)):
        raise NotFound(f"group {group[:265]!r} does not exist: it is <application> or <application>.<group>")


def optional(asked: "Deferred[GroupView]") -> "Deferred[GroupView | None]":
    """NotFound as None."""
    found: Deferred[GroupView | None] = asked.addErrback(lambda reason: reason.trap(NotFound) and None)
    return found


async def together(asked: Sequence["Deferred[GroupView | None]"]) -> list[GroupView | None]:
    """All of them, in order; or what the first one failed with."""
    results: list[tuple[bool, Any]] = await DeferredList(asked, consumeErrors=True)
    for done, result in results:
        if not done:
            result.raiseException()
    return [result for _, result in results]
