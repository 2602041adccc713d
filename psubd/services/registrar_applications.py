"""The registrar's applications and their keys."""

import msgspec
from twisted.internet.defer import Deferred

from psubd.errors import Exists, InUse
from psubd.interfaces import Plan
from psubd.keys import digest, make
from psubd.model import Application, CredentialKind, Key, Topic
from psubd.services.registrar_clearing import Clearing
from psubd.services.registrar_rolls import Rolls, put
from psubd.services.registrar_rules import OVERLAP_S, check_application_id, check_choice, check_name, within
from psubd.services.registrar_topics import Topics
from psubd.services.rounds import carried_through

KINDS: tuple[CredentialKind, ...] = ("pubkey", "secret", "subkey")


class Applications(Topics):
    """See `psubd.interfaces.IRegistrar`."""

    def create_application(self, id: str, name: str, actor: str) -> "Deferred[tuple[Application, dict[str, str]]]":
        return carried_through(self._create_application(id, name, actor))

    async def _create_application(self, id: str, name: str, actor: str) -> tuple[Application, dict[str, str]]:
        check_application_id(id)
        check_name(name)
        shown = {kind: make(kind) for kind in KINDS}

        def draw(rolls: Rolls, serial: int) -> tuple[Application, Plan]:
            if rolls.has("application", id):
                raise Exists(f"application {id} exists; choose another id, or delete it first")
            keys = [(kept(kind, shown[kind]),) for kind in KINDS]
            application = Application(id, name, serial, self._clock.epoch_ms(), *keys)
            return application, Plan(f"application.created {id}", (put(f"/applications/{id}", application),))

        return await self._make(actor, draw), dict(shown.items())

    def rotate(self, id: str, which: CredentialKind, overlap_s: int, actor: str, if_match: int | None) -> "Deferred[tuple[Application, str]]":
        return carried_through(self._rotate(id, which, overlap_s, actor, if_match))

    async def _rotate(self, id: str, which: CredentialKind, overlap_s: int, actor: str, if_match: int | None) -> tuple[Application, str]:
        check_choice("which", which, KINDS)
        within("overlap_s", overlap_s, 0, OVERLAP_S)
        shown = make(which)
        field = f"{which}s"

        def draw(rolls: Rolls, serial: int) -> tuple[Application, Plan]:
            application = rolls.application(id)
            rolls.check_version("application", id, if_match)
            keys = rotated(getattr(application, field), kept(which, shown), self._clock.epoch_ms(), overlap_s)
            application = msgspec.structs.replace(application, **{field: keys})
            return application, Plan(f"key.rotated {id}/{which}", (put(f"/applications/{id}", application),))

        return await self._make(actor, draw), shown

    def delete_application(self, id: str, force: bool, actor: str, if_match: int | None) -> "Deferred[dict[str, list[str]]]":
        return self._in_turn(lambda: self._delete_application(id, force, actor, if_match))

    async def _delete_application(self, id: str, force: bool, actor: str, if_match: int | None) -> dict[str, list[str]]:
        rolls = self._now()
        rolls.application(id)
        stored = await self._reachable([topic.id for topic in rolls.owned_by(id)]) if force else {}

        def draw(rolls: Rolls, serial: int) -> tuple[tuple[Clearing, list[Topic]], Plan]:
            rolls.application(id)
            rolls.check_version("application", id, if_match)
            owned = rolls.owned_by(id)
            if not force:
                refuse_if_used(id, owned, list(rolls.bindings(id)))
            clearing = Clearing(rolls, serial)
            clearing.drop_application(id)
            clearing.drop_topics({topic.id for topic in owned}, but=id)
            return (clearing, owned), Plan(f"application.deleted {id}", tuple(clearing.writes))

        clearing, owned = await self._make(actor, draw)
        for group, topic in clearing.places:
            await self._forget(group, topic)
        await self._drop_data([topic for topic in owned if not topic.adopted], stored)
        return {"topics": [topic.id for topic in owned], **clearing.what_went()}


def kept(kind: CredentialKind, shown: str) -> Key:
    """What is kept of a new key. The pubkey is no secret."""
    return Key(digest(shown), text=shown if kind == "pubkey" else None)


def rotated(keys: tuple[Key, ...], new: Key, now: int, overlap_s: int) -> tuple[Key, ...]:
    """The new key, and the present one for as long as they overlap; an older one is gone at once."""
    if overlap_s == 0:
        return (new,)
    return (new, msgspec.structs.replace(keys[0], until_ms=now + overlap_s * 1000))


def refuse_if_used(id: str, owned: list[Topic], bound: list[str]) -> None:
    """:raises InUse: while the application owns topics or is bound."""
    if owned or bound:
        owns = f"owns {some([topic.id for topic in owned])}" if owned else "owns no topic"
        is_bound = f"is bound to {some(sorted(bound))}" if bound else "is bound to none"
        raise InUse(f"application {id} {owns} and {is_bound}; delete these first, or use force=true to take them along")


def some(names: list[str]) -> str:
    """The first ten, and how many more."""
    more = len(names) - 10
    return ", ".join(names[:10]) + (f" and {more} more" if more > 0 else "")
