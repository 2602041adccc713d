"""The registrar's tokens: who may use the manager port."""

import hmac
import re

from twisted.internet.defer import Deferred

from psubd.errors import ConfigError, Exists, InUse
from psubd.interfaces import Delete, Plan
from psubd.keys import digest, make
from psubd.model import Role, Token
from psubd.services.registrar_desk import Desk
from psubd.services.registrar_rolls import Rolls, put
from psubd.services.registrar_rules import check_choice, check_token_name
from psubd.services.rounds import carried_through

ROLES: tuple[Role, ...] = ("admin", "viewer", "metrics")

GIVEN_TOKEN = re.compile(r"[!-~]{16,200}")
"""An admin token that an operator chose: what fits in a header, and cannot be guessed within days."""


class Present(Exception):
    """Registered already: nothing to write."""

    def __init__(self, token: Token) -> None:
        super().__init__(token.name)
        self.token = token


class Tokens(Desk):
    """See `psubd.interfaces.IRegistrar`."""

    def create_token(self, name: str, role: Role, actor: str) -> "Deferred[tuple[Token, str]]":
        return carried_through(self._create_token(name, role, actor, make("token")))

    async def _create_token(self, name: str, role: Role, actor: str, text: str) -> tuple[Token, str]:
        check_token_name(name)
        check_choice("role", role, ROLES)

        def draw(rolls: Rolls, serial: int) -> tuple[Token, Plan]:
            if rolls.has("token", name):
                raise Exists(f"token {name} exists; choose another name, or delete it first")
            return self._new_token(name, role, text, serial)

        return await self._make(actor, draw), text

    def _new_token(self, name: str, role: Role, text: str, serial: int) -> tuple[Token, Plan]:
        token = Token(name, role, digest(text), serial, self._clock.epoch_ms())
        return token, Plan(f"token.created {name}", (put(f"/tokens/{name}", token),))

    def delete_token(self, name: str, actor: str, if_match: int | None = None) -> "Deferred[None]":
        def draw(rolls: Rolls, serial: int) -> tuple[None, Plan]:
            token = rolls.token(name)
            rolls.check_version("token", name, if_match)
            if token.role == "admin" and sum(other.role == "admin" for other in rolls.tokens()) == 1:
                raise InUse(f"token {name} is the last admin token; make another one first")
            return None, Plan(f"token.deleted {name}", (Delete(f"/tokens/{name}"),))

        return carried_through(self._make(actor, draw))

    def token_of(self, shown: str) -> Token | None:
        sought = digest(shown)
        # All are compared, each in constant time: how long it takes tells nothing.
        found = [token for token in self._now().tokens() if hmac.compare_digest(token.digest, sought)]
        return found[0] if found else None

    def ensure_admin(self, text: str) -> "Deferred[Token]":
        """Register ``text`` as an admin token, named ``admin`` (or ``admin-2``, ... where that is another one's); registered already: nothing.

        Only for a token that was just made, or that the operator named (``PSUBD_ADMIN_TOKEN``): one that somebody deleted since would be
        there again. A former one is not ended: another node, or a script, may use it.

        Fails with ConfigError for a text that is no good token, RegistryUnavailable.
        """
        return carried_through(self._ensure_admin(text))

    async def _ensure_admin(self, text: str) -> Token:
        if GIVEN_TOKEN.fullmatch(text) is None:
            raise ConfigError(["the admin token (PSUBD_ADMIN_TOKEN or the file admin-token) needs 16 to 200 printable ASCII characters, no blanks"])
        present = self._admin_of(self._now(), text)
        if present is not None:
            return present

        def draw(rolls: Rolls, serial: int) -> tuple[Token, Plan]:
            made = self._admin_of(rolls, text)
            if made is not None:  # another node was first
                raise Present(made)
            number = 1
            while rolls.has("token", admin_name(number)):
                number += 1
            return self._new_token(admin_name(number), "admin", text, serial)

        try:
            return await self._make("psubd", draw)
        except Present as found:
            return found.token

    def _admin_of(self, rolls: Rolls, text: str) -> Token | None:
        sought = digest(text)
        return next((token for token in rolls.tokens() if token.role == "admin" and hmac.compare_digest(token.digest, sought)), None)


def admin_name(number: int) -> str:
    return "admin" if number == 1 else f"admin-{number}"
