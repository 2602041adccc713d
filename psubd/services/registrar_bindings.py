"""The registrar's bindings, and with them where an application's own group begins."""

import secrets

import msgspec
from twisted.internet.defer import Deferred

from psubd.errors import BadBody, InUse, NotFound, PsubdError, RegistryUnavailable, StorageTimeout
from psubd.interfaces import Delete, Plan, Put
from psubd.model import Application, Binding, Group, GroupTopic, Topic
from psubd.services import places
from psubd.services.contests import foreign_own
from psubd.services.registrar_clearing import Clearing
from psubd.services.registrar_desk import Desk
from psubd.services.registrar_rolls import Rolls, check_version, put, put_bindings
from psubd.services.registrar_rules import check_binding

TRIES = 5
"""How often a grant begins anew because another node wrote in between."""


class Moved(Exception):
    """What a plan was made for is no longer so; begin anew."""


class Judged(msgspec.Struct, frozen=True):
    """What a PUT of a binding meets."""

    application: Application
    topic: Topic
    former: Binding | None

    @property
    def mark(self) -> str:
        """Of the binding that grants ``sub`` now; empty: none does."""
        return self.former.mark if self.former is not None and self.former.sub else ""

    @property
    def identity(self) -> tuple[int, int, str]:
        """What a group's place that was stored beforehand depends on."""
        return self.application.serial, self.topic.serial, self.mark


class Bindings(Desk):
    """See `psubd.interfaces.IRegistrar`. An owner's binding is made with its topic, and is a binding like any other from then on."""

    def put_binding(self, binding: Binding, actor: str, if_match: int | None) -> "Deferred[tuple[Binding, bool]]":
        return self._in_turn(lambda: self._put_binding(binding, actor, if_match))

    async def _put_binding(self, binding: Binding, actor: str, if_match: int | None) -> tuple[Binding, bool]:
        check_binding(binding)
        for _ in range(TRIES):
            try:
                return await self._try_to_put(binding, actor, if_match)
            except Moved:
                continue
        raise RegistryUnavailable("others change this binding all the time; nothing was changed, try again")

    async def _try_to_put(self, binding: Binding, actor: str, if_match: int | None) -> tuple[Binding, bool]:
        met = judge(self._now(), binding, if_match)
        granted = binding.sub and not met.mark
        mark = met.mark if not granted else secrets.token_urlsafe(8)
        asked = msgspec.structs.replace(binding, mark=mark if binding.sub else "")

        def draw(rolls: Rolls, serial: int) -> tuple[tuple[Binding, bool, Clearing], Plan]:
            now = judge(rolls, binding, if_match)
            if now.identity != met.identity:
                raise Moved
            return self._drawn(rolls, serial, now, asked)

        if granted:
            await self._begin(met.topic, asked)
        try:
            put_one, made, clearing = await self._make(actor, draw)
        except StorageTimeout:
            raise  # it may be registered: nothing is taken back
        except BaseException:
            if granted:
                await self._take_place_back(asked)
            raise
        for group, topic in clearing.places:
            await self._forget(group, topic)
        return put_one, made

    async def _begin(self, topic: Topic, asked: Binding) -> None:
        """The application's own group gets its place. Nothing else is changed before; a half-kept place goes again."""
        try:
            await places.begin(self._storage, asked.application, topic, asked)
        except InUse as taken:
            raise foreign_own(asked.application, taken) from taken
        except PsubdError:
            await self._take_place_back(asked)
            raise

    async def _take_place_back(self, asked: Binding) -> None:
        """The place that was kept for a grant that was not made. Where another node made it meanwhile, the place may be its own."""
        present = self._now().bindings(asked.application).get(asked.topic)
        if present is None or not present.sub:
            await self._forget(asked.application, asked.topic)

    def _drawn(self, rolls: Rolls, serial: int, now: Judged, asked: Binding) -> tuple[tuple[Binding, bool, Clearing], Plan]:
        former = now.former
        if former is None:
            binding = msgspec.structs.replace(asked, serial=serial, version=serial)
        else:
            binding = msgspec.structs.replace(asked, serial=former.serial, version=serial)
        items = {**rolls.bindings(asked.application), asked.topic: binding}
        writes: list[Put | Delete] = [put_bindings(asked.application, items)]
        clearing = Clearing(rolls, serial)
        if binding.sub and not now.mark:
            writes.append(self._group(rolls, serial, now.topic, binding))
        elif now.mark and not binding.sub:
            clearing.drop_places(asked.application, {asked.topic})
        what = f"binding.put {asked.application}/{asked.topic}"
        return (binding, former is None, clearing), Plan(what, (*writes, *clearing.writes))

    def _group(self, rolls: Rolls, serial: int, topic: Topic, binding: Binding) -> Put:
        """The application's own group stands on the topic from now on."""
        name = binding.application
        group = rolls.group(name) or Group(name, name, serial, self._clock.epoch_ms())
        group = msgspec.structs.replace(group, topics={**group.topics, topic.id: GroupTopic(topic.uid, binding.mark)})
        return put(f"/groups/{name}", group)

    def delete_binding(self, application: str, topic: str, actor: str, if_match: int | None) -> "Deferred[None]":
        return self._in_turn(lambda: self._delete_binding(application, topic, actor, if_match))

    async def _delete_binding(self, application: str, topic: str, actor: str, if_match: int | None) -> None:
        def draw(rolls: Rolls, serial: int) -> tuple[Clearing, Plan]:
            items = rolls.bindings(application)
            former = items.pop(topic, None)
            if former is None:
                raise NotFound(f"application {application[:80]!r} is not bound to topic {topic[:200]!r}")
            check_version(f"binding {application}/{topic}", former.version, if_match)
            clearing = Clearing(rolls, serial)
            clearing.drop_places(application, {topic})
            return clearing, Plan(f"binding.deleted {application}/{topic}", (put_bindings(application, items), *clearing.writes))

        clearing = await self._make(actor, draw)
        for group, name in clearing.places:
            await self._forget(group, name)


def judge(rolls: Rolls, binding: Binding, if_match: int | None) -> Judged:
    """All that the registry can say against a PUT. :raises NotFound: :raises BadBody: :raises VersionMismatch:"""
    application, topic = rolls.application(binding.application), rolls.topic(binding.topic)
    former = rolls.bindings(binding.application).get(binding.topic)
    check_version(f"binding {binding.application}/{binding.topic}", None if former is None else former.version, if_match)
    if binding.dead_letter is not None and not rolls.has("topic", binding.dead_letter):
        raise BadBody(f"dead_letter: topic {binding.dead_letter[:200]!r} is not registered")
    return Judged(application, topic, former)
