"""What changed, while it happens: ``/api/v1/events``.

The registry's own record of changes, as server-sent events: the id is the change's serial, so a client that comes back with ``Last-Event-ID``
gets what it missed, on any node. What is older than the record goes back is told as an event ``gap``. Between them: `psubd.manager.journal`.
"""

from collections.abc import Callable

from psubd import fields
from psubd.errors import BadHeader, BadParameter, OverBudget, PsubdError
from psubd.interfaces import IClock, IOutlet, Route
from psubd.manager.doc import JSON, Doc, Parameter, Reply
from psubd.manager.guard import Guard
from psubd.manager.journal import Journal, Place, Told
from psubd.manager.listing import LIMIT, MOST, PAGING, Page, read_cursor, write_cursor
from psubd.manager.views import ChangeView
from psubd.manager.visit import Caller, Visit, answer
from psubd.model import Answer

SSE = "text/event-stream"
LIST = "events"

HEARTBEAT_MS = 15_000
"""A comment line so often keeps proxies from closing a silent connection; their usual bound is 30 or 60 s."""

MOST_BUFFERED = 1_048_576
"""Bytes that a client may be behind; then it is let go, and comes back with ``Last-Event-ID``."""

MOST_STREAMS = 256
RETRY_MS = 3000


class Events:
    def __init__(self, guard: Guard, journal: Journal, clock: IClock) -> None:
        self._guard, self._journal, self._clock = guard, journal, clock
        self._streams: set[Stream] = set()

    def routes(self) -> list[Route]:
        doc = Doc(
            "status",
            "What changed, by whom: as a stream, or the last changes as a list, the newest first",
            {
                200: Reply(
                    "An event for each change from now on, or since `Last-Event-ID`; as JSON: a page of changes.", Page[ChangeView], (SSE, JSON)
                )
            },
            parameters=(
                Parameter("last-event-id", str, "The id of the last event that was seen: what came after it is sent first.", "header"),
                *PAGING,
            ),
            refusals=(BadHeader, OverBudget),
        )
        return [self._guard.route("GET", "/api/v1/events", self.events, "events", doc, head=False)]

    async def events(self, visit: Visit) -> Answer:
        return self._page(visit) if visit.media == JSON else self._stream(visit)

    # --- as a list ----------------------------------------------------------------------------------------------------------------

    def _page(self, visit: Visit) -> Answer:
        limit, cursor = visit.number("limit", 1, MOST, LIMIT), visit.query.get("cursor")
        older_than = None if cursor is None else place_of(cursor)
        everything = reversed(self._journal.since((0, 0)))
        found = [told for told in everything if older_than is None or told.place < older_than]
        page = found[:limit]
        following = write_cursor((page[-1].id,), LIST) if len(found) > limit else None
        return answer(Page([ChangeView.of(told.change) for told in page], following))

    # --- as a stream --------------------------------------------------------------------------------------------------------------

    def _stream(self, visit: Visit) -> Answer:
        if visit.query:
            raise BadParameter(f"{next(iter(visit.query))}: for the list only; send Accept: {JSON}, or leave it out")
        if len(self._streams) >= MOST_STREAMS:
            raise OverBudget(f"{MOST_STREAMS} event streams are open on this node already", 30)
        caller, after = visit.caller, last_event(visit)
        assert caller is not None

        def begin(outlet: IOutlet) -> None:
            stream = Stream(outlet, caller, self._journal, self._clock, self._streams.discard)
            self._streams.add(stream)
            stream.start(after)

        return Answer(headers=[(b"content-type", SSE.encode())], stream=begin)


def place_of(cursor: str) -> Place:
    """:raises BadParameter:"""
    key = read_cursor(cursor, LIST)
    return place(key[0] if key else "", "cursor", BadParameter)


def last_event(visit: Visit) -> Place | None:
    """What the client saw last, or None. :raises BadHeader:"""
    sent = visit.exchange.header(b"last-event-id")
    return None if sent is None else place(sent.decode("latin-1"), "last-event-id", BadHeader)


def place(id: str, name: str, error: type[PsubdError]) -> Place:
    """An event's id as a place. :raises PsubdError: ``error``."""
    serial, dot, aside = id.partition(".")
    return fields.integer(serial, name, 0, fields.INT64, error), fields.integer(aside, name, 1, fields.INT64, error) if dot else 0


class Stream:
    """One open stream. Ends when the client goes, falls behind, or its credential ends.

    :param ended: called once, with this.
    """

    def __init__(self, outlet: IOutlet, caller: Caller, journal: Journal, clock: IClock, ended: Callable[["Stream"], None]) -> None:
        self._outlet, self._caller, self._journal, self._clock, self._ended = outlet, caller, journal, clock, ended
        self._open = True
        self._deaf: Callable[[], None] = lambda: None
        self._heartbeat = clock.call_later(HEARTBEAT_MS, self._beat)

    def start(self, after: Place | None) -> None:
        """Say what was missed since ``after`` (None: nothing), then everything that happens."""
        self._outlet.on_lost(self._close)
        if not self._open:  # it was lost before it began
            return
        self._deaf = self._journal.listen(self._tell)
        self._write(f"retry: {RETRY_MS}\n\n".encode())
        if after is None:
            return
        until = self._journal.lost(after[0])
        if until is not None:
            self._write(gap(after[0], until))
            after = until, 0
        for told in self._journal.since(after):
            self._tell(told)

    def _tell(self, told: Told) -> None:
        if self._stands():
            self._write(event(told))

    def _beat(self) -> None:
        if self._stands():
            self._write(b":\n\n")
            self._heartbeat = self._clock.call_later(HEARTBEAT_MS, self._beat)

    def _stands(self) -> bool:
        """Whether it may go on; ends it where it may not."""
        if self._open and (self._outlet.buffered > MOST_BUFFERED or not self._caller.stands()):
            self._finish()
        return self._open

    def _write(self, data: bytes) -> None:
        if self._open:
            self._outlet.write(data)

    def _finish(self) -> None:
        self._close()
        self._outlet.finish()

    def _close(self) -> None:
        if not self._open:
            return
        self._open = False
        self._deaf()
        if self._heartbeat.active():
            self._heartbeat.cancel()
        self._ended(self)


def gap(after: int, until: int) -> bytes:
    """The event that says that changes are missing, those behind ``after`` up to ``until``: read everything anew."""
    return b"id: %d\nevent: gap\ndata: %b\n\n" % (until, fields.json_bytes({"after": after, "until": until}))


def event(told: Told) -> bytes:
    """Something that happened as an event; its kind is the first word of what it says, so that a page can listen to some of them only."""
    kind = "".join(told.change.what.split()[:1]) or "changed"
    return b"id: %b\nevent: %b\ndata: %b\n\n" % (told.id.encode(), kind.encode(), fields.json_bytes(ChangeView.of(told.change)))
