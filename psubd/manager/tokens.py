"""Manager tokens: ``/api/v1/tokens``."""

from psubd.errors import Exists, InUse, NotFound, VersionMismatch
from psubd.interfaces import IRegistrar, Route
from psubd.manager.doc import ADMIN, IF_MATCH, NO_CONTENT, Doc, Reply
from psubd.manager.forms import NewToken
from psubd.manager.guard import Guard
from psubd.manager.listing import PAGING, Page, keyed
from psubd.manager.records import Records
from psubd.manager.views import MadeToken, TokenView
from psubd.manager.visit import Visit, answer, no_content
from psubd.model import Answer, Token

TAG = "tokens"


class Tokens:
    def __init__(self, guard: Guard, registrar: IRegistrar, records: Records) -> None:
        self._guard, self._registrar, self._records = guard, registrar, records

    def routes(self) -> list[Route]:
        route, one = self._guard.route, "/api/v1/tokens/{name}"
        made = Reply("Made. The token is shown this once.", MadeToken, headers=("etag", "location"))
        return [
            route(
                "POST",
                "/api/v1/tokens",
                self.create,
                "createToken",
                Doc(TAG, "Make a manager token", {201: made}, ADMIN, body=NewToken, refusals=(Exists,)),
            ),
            route(
                "GET",
                "/api/v1/tokens",
                self.index,
                "listTokens",
                Doc(TAG, "Who has a manager token", {200: Reply("A page of tokens.", Page[TokenView])}, parameters=PAGING),
            ),
            route(
                "GET",
                one,
                self.show,
                "getToken",
                Doc(TAG, "One manager token", {200: Reply("The token.", TokenView, headers=("etag",))}, refusals=(NotFound,)),
            ),
            route(
                "DELETE",
                one,
                self.delete,
                "deleteToken",
                Doc(
                    TAG,
                    "End a manager token, and the sessions of who signed in with it",
                    {204: NO_CONTENT},
                    ADMIN,
                    parameters=(IF_MATCH,),
                    refusals=(NotFound, InUse, VersionMismatch),
                    conditional=True,
                ),
            ),
        ]

    async def create(self, visit: Visit) -> Answer:
        form: NewToken = visit.form
        token, clear = await self._registrar.create_token(form.name, form.role, visit.actor)
        found = self._records.find(Token, token.name)
        version = 1 if found is None else found[1]
        made = MadeToken(token.name, token.role, token.created_ms, version, clear)
        return answer(made, 201, version=version, location=f"/api/v1/tokens/{token.name}")

    async def index(self, visit: Visit) -> Answer:
        keys, following = visit.page(keyed(self._records.names(Token)), TAG)
        found = self._records.some(Token, [name for (name,) in keys])
        return answer(Page([TokenView.of(token, version) for token, version in found], following))

    async def show(self, visit: Visit, name: str) -> Answer:
        token, version = self._records.get(Token, name)
        return answer(TokenView.of(token, version), version=version)

    async def delete(self, visit: Visit, name: str) -> Answer:
        _, version = self._records.get(Token, name)
        await self._registrar.delete_token(name, visit.actor, visit.if_match(version))
        return no_content()
