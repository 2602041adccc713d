"""Tenants and their keys: ``/api/v1/applications``."""

from collections.abc import Sequence

import msgspec

from psubd.errors import Exists, InUse, NotFound, StorageTimeout, StorageUnavailable, VersionMismatch
from psubd.interfaces import IClock, IRegistrar, Route
from psubd.manager.doc import ADMIN, IF_MATCH, NO_CONTENT, Doc, Parameter, Reply
from psubd.manager.forms import NewApplication, Rotation
from psubd.manager.guard import Guard
from psubd.manager.listing import PAGING, Page, keyed
from psubd.manager.records import Records
from psubd.manager.views import ApplicationView, KeyView, MadeApplication
from psubd.manager.visit import Visit, answer, no_content
from psubd.model import Answer, Application, CredentialKind

TAG = "applications"
LIST, ONE = "/api/v1/applications", "/api/v1/applications/{id}"


class Rotated(msgspec.Struct, frozen=True):
    """The new key: the one of ``pubkey``, ``secret``, ``subkey`` that was asked for, shown this once. ``until_ms``: when the former one ends; null:
    it has ended."""

    application: ApplicationView
    which: CredentialKind
    until_ms: int | None
    pubkey: str | msgspec.UnsetType = msgspec.UNSET
    secret: str | msgspec.UnsetType = msgspec.UNSET
    subkey: str | msgspec.UnsetType = msgspec.UNSET


class Gone(msgspec.Struct, frozen=True):
    """What went with it: ids of topics, bindings as ``application/topic``, full names of groups."""

    topics: list[str]
    bindings: list[str]
    groups: list[str]


class Applications:
    def __init__(self, guard: Guard, registrar: IRegistrar, records: Records, clock: IClock) -> None:
        self._guard, self._registrar, self._records, self._clock = guard, registrar, records, clock

    def routes(self) -> list[Route]:
        route = self._guard.route
        made = Reply("Made. `secret` and `subkey` are shown this once.", MadeApplication, headers=("etag", "location"))
        force = Parameter("force", bool, "Delete its topics, bindings and groups too.")
        return [
            route(
                "POST",
                LIST,
                self.create,
                "createApplication",
                Doc(TAG, "Register an application", {201: made}, ADMIN, NewApplication, refusals=(Exists,)),
            ),
            route(
                "GET",
                LIST,
                self.index,
                "listApplications",
                Doc(TAG, "The registered applications", {200: Reply("A page of applications.", Page[ApplicationView])}, parameters=PAGING),
            ),
            route(
                "GET",
                ONE,
                self.show,
                "getApplication",
                Doc(TAG, "One application", {200: Reply("The application.", ApplicationView, headers=("etag",))}, refusals=(NotFound,)),
            ),
            route(
                "POST",
                f"{ONE}/rotate",
                self.rotate,
                "rotateKey",
                Doc(
                    TAG,
                    "Make a new key; the present one stays valid for the overlap",
                    {200: Reply("The new key, shown this once.", Rotated, headers=("etag",))},
                    ADMIN,
                    Rotation,
                    (IF_MATCH,),
                    (NotFound, VersionMismatch),
                    conditional=True,
                ),
            ),
            route(
                "DELETE",
                ONE,
                self.delete,
                "deleteApplication",
                Doc(
                    TAG,
                    "Delete an application",
                    {204: NO_CONTENT, 200: Reply("Done, with `force`: what went along.", Gone)},
                    ADMIN,
                    parameters=(force, IF_MATCH),
                    refusals=(NotFound, InUse, VersionMismatch, StorageUnavailable, StorageTimeout),
                    conditional=True,
                ),
            ),
        ]

    async def create(self, visit: Visit) -> Answer:
        form: NewApplication = visit.form
        name = form.id if form.name is msgspec.UNSET else form.name
        application, keys = await self._registrar.create_application(form.id, name, visit.actor)
        version = self._version(form.id)
        made = MadeApplication.of(application, version, self._clock.epoch_ms(), secret=keys["secret"], subkey=keys["subkey"])
        return answer(made, 201, version=version, location=f"{LIST}/{form.id}")

    async def index(self, visit: Visit) -> Answer:
        keys, following = visit.page(keyed(self._records.names(Application)), TAG)
        now = self._clock.epoch_ms()
        found = self._records.some(Application, [name for (name,) in keys])
        return answer(Page([ApplicationView.of(application, version, now) for application, version in found], following))

    async def show(self, visit: Visit, id: str) -> Answer:
        application, version = self._records.get(Application, id)
        return answer(ApplicationView.of(application, version, self._clock.epoch_ms()), version=version)

    async def rotate(self, visit: Visit, id: str) -> Answer:
        form: Rotation = visit.form
        _, version = self._records.get(Application, id)
        application, key = await self._registrar.rotate(id, form.which, form.overlap_s, visit.actor, visit.if_match(version))
        version = self._version(id)
        view = ApplicationView.of(application, version, self._clock.epoch_ms())
        kinds: dict[str, Sequence[KeyView]] = {"pubkey": view.pubkeys, "secret": view.secrets, "subkey": view.subkeys}
        valid = kinds[form.which]
        rotated = Rotated(view, form.which, valid[1].until_ms if len(valid) > 1 else None, **{form.which: key})
        return answer(rotated, version=version)

    async def delete(self, visit: Visit, id: str) -> Answer:
        _, version = self._records.get(Application, id)
        force = visit.flag("force")
        gone = await self._registrar.delete_application(id, force, visit.actor, visit.if_match(version))
        return answer(msgspec.convert(gone, Gone)) if force else no_content()

    def _version(self, id: str) -> int:
        """The present version; 1 where somebody deleted it this very moment."""
        found = self._records.find(Application, id)
        return 1 if found is None else found[1]
