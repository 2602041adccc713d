"""Sessions of those who signed in, and how often one may fail to.

Sessions live in this process only: after a restart one signs in again. What is kept is a digest of the session's id, never the token.
"""

import base64
import hashlib
import os

import msgspec

from psubd.errors import RateLimited
from psubd.interfaces import IClock
from psubd.model import Role, Token

COOKIE = "psubd-session"
LASTS_MS = 12 * 3_600_000
MOST = 10_000
"""Sessions kept; beyond it the oldest ends."""

ATTEMPTS, ATTEMPTS_MS = 10, 60_000
"""Failed sign-ins an address may have within so long. Guessing a 256-bit token is hopeless anyway; this keeps the log readable."""


class Session(msgspec.Struct, frozen=True):
    """:ivar serial: of the token; one made again under the same name is another one. :ivar until_ms: on the clock that never jumps."""

    name: str
    role: Role
    serial: int
    until_ms: int


class Sessions:
    """The sessions that stand."""

    def __init__(self, clock: IClock) -> None:
        self._clock = clock
        self._open: dict[str, Session] = {}

    def begin(self, token: Token) -> str:
        """A new session of the token's; its id, to be kept by the browser only."""
        self._sweep()
        id = base64.urlsafe_b64encode(os.urandom(32)).rstrip(b"=").decode()
        self._open[digest(id)] = Session(token.name, token.role, token.serial, self._clock.elapsed_ms() + LASTS_MS)
        return id

    def find(self, id: str) -> Session | None:
        """The session, unless it is over."""
        session = self._open.get(digest(id))
        return session if session is not None and self.stands(session) else None

    def stands(self, session: Session) -> bool:
        """Whether its time is not over."""
        return self._clock.elapsed_ms() < session.until_ms

    def _sweep(self) -> None:
        """Drop what is over, and the oldest beyond the bound. All last equally long, so they end in the order in which they began."""
        while self._open:
            oldest = next(iter(self._open))
            if self.stands(self._open[oldest]) and len(self._open) < MOST:
                return
            del self._open[oldest]


def digest(id: str) -> str:
    return hashlib.sha256(id.encode()).hexdigest()


class Attempts:
    """Failed sign-ins by address, in windows that begin with the first failure."""

    def __init__(self, clock: IClock) -> None:
        self._clock = clock
        self._failed: dict[str, tuple[int, int]] = {}

    def check(self, client: str) -> None:
        """:raises RateLimited: the address has failed too often; a right token is refused too, or the bound would bind nobody."""
        began, count = self._failed.get(client, (0, 0))
        left_ms = began + ATTEMPTS_MS - self._clock.elapsed_ms()
        if count >= ATTEMPTS and left_ms > 0:
            seconds = -(-left_ms // 1000)
            raise RateLimited(f"too many failed sign-ins from here; try again in {seconds} s", seconds, limit=ATTEMPTS, reset=seconds)

    def failed(self, client: str) -> None:
        """Count one."""
        now = self._clock.elapsed_ms()
        self._sweep(now)
        began, count = self._failed.get(client, (now, 0))
        self._failed[client] = (began, count + 1)

    def _sweep(self, now: int) -> None:
        """Windows that are over go; they were put in the order in which they began."""
        while self._failed:
            oldest = next(iter(self._failed))
            if now < self._failed[oldest][0] + ATTEMPTS_MS and len(self._failed) < MOST:
                return
            del self._failed[oldest]
