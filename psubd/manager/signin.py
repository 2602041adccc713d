"""Sign-in for the web page: a token is exchanged for a cookie that scripts cannot read."""

from typing import Annotated

import msgspec

from psubd.errors import BadCredentials, RateLimited
from psubd.interfaces import IClock, IExchange, Route
from psubd.manager.doc import Doc, Reply
from psubd.manager.guard import CHALLENGE, Guard
from psubd.manager.sessions import COOKIE, LASTS_MS, Attempts, Sessions
from psubd.manager.visit import Visit, answer
from psubd.model import Answer, Role


class SignIn(msgspec.Struct, forbid_unknown_fields=True):
    """A token to sign in with."""

    token: Annotated[str, msgspec.Meta(min_length=1, max_length=200)]


class SignedIn(msgspec.Struct, frozen=True):
    """Who one is now. ``until_ms``: when the session ends."""

    name: str
    role: Role
    until_ms: int


class SignIns:
    """``POST /api/v1/session``."""

    def __init__(self, guard: Guard, sessions: Sessions, clock: IClock, secure: bool) -> None:
        self._guard, self._sessions, self._clock, self._secure = guard, sessions, clock, secure
        self._attempts = Attempts(clock)

    def routes(self) -> list[Route]:
        doc = Doc(
            "session",
            "Exchange a token for a session cookie (HttpOnly, SameSite=Strict, 12 hours)",
            {200: Reply("Signed in.", SignedIn, headers=("set-cookie",))},
            roles=(),
            body=SignIn,
            refusals=(BadCredentials, RateLimited),
            fresh=False,
        )
        return [self._guard.route("POST", "/api/v1/session", self.sign_in, "signIn", doc, max_body=4096)]

    async def sign_in(self, visit: Visit) -> Answer:
        self._attempts.check(visit.exchange.client)
        token = await self._guard.token(visit.form.token)
        if token is None:
            self._attempts.failed(visit.exchange.client)
            raise BadCredentials("the token is not valid", CHALLENGE)
        id = self._sessions.begin(token)
        made = answer(SignedIn(token.name, token.role, self._clock.epoch_ms() + LASTS_MS))
        made.headers.append((b"set-cookie", self._cookie(id, visit.exchange)))
        return made

    def _cookie(self, id: str, exchange: IExchange) -> bytes:
        secure = "; Secure" if self._secure or exchange.secure else ""
        return f"{COOKIE}={id}; Path=/; Max-Age={LASTS_MS // 1000}; HttpOnly; SameSite=Strict{secure}".encode()
