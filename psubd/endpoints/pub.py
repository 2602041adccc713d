"""POST /v1/pub and /v1/pub/{topic}: one message a request (contract, section 2).

What follows from the head alone is worked out once a head (`Said`, in `IExchange.kept`); of a head that differs only in its key or its trace, the
rest is known too (`Terms`). Each request is judged anew by what is registered, by its body and by the time.
"""

from collections.abc import Sequence
from functools import partial

from twisted.internet.defer import Deferred

from psubd import fields
from psubd.endpoints import credentials, names
from psubd.endpoints.answers import JSON_LINE, json_answer
from psubd.endpoints.credentials import Callers
from psubd.endpoints.names import Line, Lines
from psubd.errors import BadHeader, ConflictingHeaders, NotSupported, PsubdError, TopicMissing
from psubd.interfaces import IExchange, IGate, IPublisher
from psubd.model import Acks, Answer, Credentials, Grant, Headers, Position, Record

LATER = {
    "idempotency-key": "publishing once by idempotency-key",
    "delay": "scheduling by delay",
    "deliver.at": "scheduling by deliver.at",
}
"""Headers of the contract that belong to a later version of psubd."""
MOST_PARTITION = 2**31 - 1
ACKS: dict[bytes, Acks] = {b"0": "0", b"1": "1", b"all": "all", b"-1": "all"}

OWN = frozenset((b"key", b"traceparent", b"tracestate"))
"""Lines that differ from message to message."""
COMMON = frozenset(names.SPELLINGS) - OWN | credentials.SHOWN_IN
"""Lines that are the same from message to message, as a rule. No others say anything, but for record headers."""
MOST_TERMS = 1024
LONGEST_TERMS = 4096
"""How many heads are remembered without their own lines, and how many bytes each may have."""


class Terms:
    """What the head of a publish says beside key and trace.

    :ivar shown: the credentials; None: none to publish with. :ivar grant: what they gave, as of the gate's ``serial``.
    :ivar encoded: the key comes in base64.
    :ivar before: record headers that stand before the trace's. :ivar after: those that stand behind them.
    :ivar traced: what is in ``after`` speaks of the trace too.
    :ivar form: the answer, but for its numbers.
    """

    __slots__ = ("acks", "after", "before", "encoded", "form", "grant", "partition", "serial", "shown", "timestamp", "tombstone", "topic", "traced")

    def __init__(self, shown: Credentials | None, grant: Grant, lines: Lines, path: str | None) -> None:
        self.shown, self.grant, self.serial = shown, grant, -1
        refuse_later(lines)
        self.acks = read_acks(lines)
        self.topic = read_topic(lines, path)
        self.tombstone = read_tombstone(lines)
        partition, timestamp = lines.text("partition"), lines.text("timestamp")
        self.partition = None if partition is None else fields.integer(partition, "partition", 0, MOST_PARTITION, BadHeader)
        self.timestamp = None if timestamp is None else fields.integer(timestamp, "timestamp", 0, fields.INT64, BadHeader)
        self.encoded = names.is_base64(lines, "key.encoding")
        self.before, self.after = names.common_headers(lines)
        self.traced = any(name in names.TRACE for name, _ in self.after)
        self.form = b'{"topic":"%b","partition":%%d,"offset":%%d,"timestamp":%%d}' % self.topic.encode("ascii")


class Said:
    """What the head of a publish says: its terms, and what is its own.

    :ivar beside: bytes of key and record headers.
    """

    __slots__ = ("beside", "headers", "key", "terms")

    def __init__(self, terms: Terms, key: bytes | None, headers: Headers) -> None:
        self.terms, self.key, self.headers = terms, key, headers
        self.beside = Record(terms.topic, None, key, headers).size


class Publishing:
    """One message: the body as it came, what goes with it in headers."""

    def __init__(self, callers: Callers, gate: IGate, publisher: IPublisher) -> None:
        self._callers = callers
        self._gate = gate
        self._publisher = publisher
        self._terms: dict[tuple[str | None, tuple[Line, ...]], Terms] = {}

    def publish(self, exchange: IExchange, topic: str | None = None) -> Deferred[Answer] | Answer:
        """:param topic: from the path; None: the header names it."""
        said: Said | None = exchange.kept.get("publish")
        if said is None:
            grant, said = self._read(exchange, topic)
            exchange.kept["publish"] = said
            terms = said.terms
        else:
            terms = said.terms
            grant = terms.grant if terms.serial == self._gate.serial else self._granted(terms)
        body = exchange.body
        if terms.tombstone:
            refuse_body(body)
        registered = self._gate.may_publish(grant, terms.topic, 1, said.beside + len(body))
        record = Record(terms.topic, None if terms.tombstone else body, said.key, said.headers, terms.partition, terms.timestamp)
        try:
            judged = self._publisher.judge(registered, record)
        except TopicMissing:
            waiting = self._publisher.ready(registered)
            if waiting is None:
                raise
            return waiting.addCallback(lambda _: self._post(self._publisher.judge(registered, record), terms))
        return self._post(judged, terms)

    def _post(self, judged: Record, terms: Terms) -> Deferred[Answer] | Answer:
        if terms.acks == "0":
            self._publisher.post(judged, "0", unheard)
            return json_answer({"topic": terms.topic}, 202)
        answered: Deferred[Answer] = Deferred()
        self._publisher.post(judged, terms.acks, partial(tell, answered, terms.form))
        return answered

    def _granted(self, terms: Terms) -> Grant:
        """The grant anew. One that ends by the clock is looked up each time."""
        serial, grant = self._gate.serial, self._callers.publishing(terms.shown)
        if grant.until_ms is None:
            terms.grant, terms.serial = grant, serial
        return grant

    def _read(self, exchange: IExchange, path: str | None) -> tuple[Grant, Said]:
        """Who publishes, and what the head says. Where more than one thing is wrong, the credentials are told first."""
        own, rest = apart(exchange.headers)
        known = None if exchange.raw_query else self._terms.get((path, rest))
        if known is not None and own is not None:
            return known.grant if known.serial == self._gate.serial else self._granted(known), joined(known, own)
        shown = credentials.shown(exchange, credentials.BASIC).publish
        grant = self._callers.publishing(shown)
        refuse_query(exchange)
        lines = names.read(exchange.headers)
        terms = Terms(shown, grant, lines, path)
        if own is None or terms.traced:
            return grant, Said(terms, names.record_key(lines), names.record_headers(lines))
        said = joined(terms, own)
        if not exchange.raw_query and sum(len(name) + len(value) for name, value in rest) <= LONGEST_TERMS:
            if len(self._terms) >= MOST_TERMS:
                self._terms.clear()
            self._terms[path, rest] = terms
        return grant, said


def apart(lines: Sequence[Line]) -> tuple[dict[bytes, bytes] | None, tuple[Line, ...]]:
    """A head's own lines, and the common ones that matter. None: one of its own came twice."""
    own: dict[bytes, bytes] = {}
    twice = False
    rest = []
    for line in lines:
        name = line[0]
        if name in COMMON or name[:6] == b"header":
            rest.append(line)
        elif name in OWN:
            twice = twice or name in own
            own[name] = line[1]
    return None if twice else own, tuple(rest)


def joined(terms: Terms, own: dict[bytes, bytes]) -> Said:
    """Common and own lines together. :raises BadHeader: the key is not valid."""
    key = own.get(b"key")
    if key is not None:
        key = names.decoded(key, "key", terms.encoded)
    if len(own) == (key is not None):
        return Said(terms, key, terms.before + terms.after)
    trace = tuple([(name, own[raw]) for name, raw in names.TRACE.items() if raw in own])
    return Said(terms, key, (*terms.before, *trace, *terms.after))


def tell(answered: Deferred[Answer], form: bytes, result: Position | PsubdError) -> None:
    """What came of a single publish is its answer. Who went away meanwhile has cancelled it, and hears nothing."""
    if isinstance(result, PsubdError):
        answered.errback(result)
    else:
        answered.callback(Answer(200, form % (result.partition, result.offset, result.timestamp), [JSON_LINE]))


def unheard(_: Position | PsubdError) -> None:
    """With ``acks: 0`` nobody is told."""


def refuse_query(exchange: IExchange) -> None:
    """:raises BadParameter: the route takes no query, and one was sent."""
    if exchange.raw_query:
        fields.query(exchange.raw_query, {})


def refuse_later(lines: Lines) -> None:
    """:raises NotSupported: for a header whose meaning is not built yet."""
    for name, meaning in LATER.items():
        if name in lines.singles:
            raise NotSupported(f"{name}: {meaning} is not built yet; leave the header out")


def read_topic(lines: Lines, path: str | None) -> str:
    """The topic, from the path or the header. :raises BadHeader: :raises ConflictingHeaders:"""
    said = lines.text("topic.id")
    if said is None:
        if path is None:
            raise BadHeader("topic.id: missing; name the topic in this header, or in the path: /v1/pub/<topic>")
        return path
    if not fields.topic_id(said):
        raise BadHeader("topic.id: not a topic id; 1 to 200 of A-Z a-z 0-9 . _ -")
    if path is not None and path != said:
        raise ConflictingHeaders("topic.id and the path name different topics; send one of them")
    return said


def read_acks(lines: Lines) -> Acks:
    """:raises BadHeader:"""
    said = lines.singles.get("acks")
    if said is None:
        return "all"
    acks = ACKS.get(said)
    if acks is None:
        raise BadHeader("acks: send 0, 1 or all (or -1, which is all)")
    return acks


def read_tombstone(lines: Lines) -> bool:
    """Whether null is published. :raises BadHeader:"""
    said = lines.text("tombstone")
    return said is not None and fields.boolean(said, "tombstone", BadHeader)


def refuse_body(body: bytes) -> None:
    """:raises BadHeader: null is published, and there is a body."""
    if body:
        raise BadHeader("tombstone: true publishes null and goes with an empty body; send no body, or leave the header out")
