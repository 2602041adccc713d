"""The gate: credentials to a grant, and what a grant may do at this moment."""

import hmac
from collections.abc import Callable, Sequence
from typing import Literal, NoReturn

from zope.interface import implementer

from psubd.access.index import Index, keys_of
from psubd.access.rates import Meter
from psubd.access.watches import Watches
from psubd.errors import BadCredentials, RateLimited, RegistryUnavailable, TopicNotBound
from psubd.interfaces import Change, IClock, IGate, IRegistry
from psubd.keys import digest
from psubd.model import Application, Binding, CredentialKind, Credentials, Grant, Key, Topic

Direction = Literal["publish", "subscribe"]

MOST_KNOWN = 4_096
"""Credentials whose grants are kept; with more, all are forgotten and looked up again."""

MOST_OPENED = 100_000
"""Names of topics in the asks whose answers are kept; with more, they are forgotten and looked up again."""


@implementer(IGate)
class Gate:
    """Answers from memory. To be started after the registry, and stopped before it.

    Rates are this node's own, and begin anew with it.

    :param stale: why what is known of the registry is too old to let anybody in by it; None: it is not. Asked with each request.
    """

    def __init__(self, registry: IRegistry, clock: IClock, *, stale: Callable[[], str | None] | None = None) -> None:
        self._registry, self._clock, self._stale = registry, clock, stale
        self.index = Index()
        self.serial = 0
        self._opened: dict[tuple[str, tuple[str, ...] | None], dict[str, Binding]] = {}  # what no rate bounds, as of `serial`
        self._opened_names = 0
        self._known: dict[Direction, dict[Credentials, Grant]] = {"publish": {}, "subscribe": {}}  # without end, as of `serial`
        self._standing: dict[int, Grant] = {}  # the same, by identity
        self._bound: dict[tuple[int, str], Bound] = {}  # what those may publish to
        self._watches = Watches(clock, self._ends_of)
        self._meters: dict[str, dict[tuple[Direction, str], Meter]] = {}
        self._end_listening: Callable[[], None] | None = None

    def start(self) -> None:
        """Take in what is registered, and follow it from now on."""
        self.index.load(self._registry.snapshot())
        self._changed()
        self._end_listening = self._registry.listen(self._follow)

    def stop(self) -> None:
        """Follow no more; nobody is told of anything any more."""
        if self._end_listening is not None:
            self._end_listening()
            self._end_listening = None
        self._watches.stop()

    # --- who

    def publisher(self, shown: Credentials) -> Grant:
        known = self._known["publish"].get(shown)
        if known is not None:
            if self._stale is not None:
                self._check_age()
            return known
        if shown.secret is None or shown.identity is None:
            refuse()
        return self._keep(shown, self._granted("publish", "secret", shown.secret, shown.identity))

    def subscriber(self, shown: Credentials) -> Grant:
        known = self._known["subscribe"].get(shown)
        if known is not None:
            if self._stale is not None:
                self._check_age()
            return known
        if shown.subkey is None:
            refuse()
        return self._keep(shown, self._granted("subscribe", "subkey", shown.subkey, shown.identity))

    def grant_of(self, application: str) -> Grant | None:
        found = self.index.applications.get(application)
        return None if found is None else Grant(found, "subscribe", None, self.index.bindings.get(application, {}))

    def _granted(self, direction: Direction, kind: CredentialKind, shown: str, identity: str | None) -> Grant:
        self._check_age()
        sought = digest(shown)
        held = self.index.keys.get(sought)
        if held is None or held.kind != kind or not hmac.compare_digest(held.key.digest, sought):
            refuse()
        application = self.index.applications[held.application]
        keys = [held.key]
        if identity is not None and identity != application.id:
            keys.append(pubkey_of(application, identity))
        if not all(self._stands(key) for key in keys):
            refuse()
        until_ms = min((key.until_ms for key in keys if key.until_ms is not None), default=None)
        bindings = self.index.bindings.get(application.id, {})
        return Grant(application, direction, until_ms, bindings, tuple(key.digest for key in keys))

    def _keep(self, shown: Credentials, grant: Grant) -> Grant:
        """The grant, which holds until something changes; one that ends by the clock is looked up each time."""
        if grant.until_ms is None:
            known = self._known[grant.kind]
            if len(known) >= MOST_KNOWN:
                self._forget()
            known[shown] = grant
            self._standing[id(grant)] = grant
        return grant

    def _forget(self) -> None:
        """What was kept by `_keep`, and what hangs on it."""
        for known in self._known.values():
            known.clear()
        self._standing.clear()
        self._bound.clear()

    def _stands(self, key: Key) -> bool:
        return key.until_ms is None or key.until_ms > self._clock.epoch_ms()

    # --- may it

    def may_publish(self, grant: Grant, topic: str, messages: int, size: int) -> Topic:
        bound = self._bound.get((id(grant), topic))
        if bound is None or bound.grant is not grant:
            bound = self._bound_to(grant, topic)
        elif self._stale is not None:
            self._check_age()
        if bound.binding.rate is not None:
            self._metered("publish", bound.binding).admit(messages, size, self._clock.elapsed_ms())
        return bound.topic

    def _bound_to(self, grant: Grant, topic: str) -> "Bound":
        """What `may_publish` goes by. :raises BadCredentials: :raises TopicNotBound:"""
        application = self._present(grant, "publish")
        binding = self.index.bindings.get(application, {}).get(topic)
        registered = self.index.topics.get(topic)
        if binding is None or not binding.pub or registered is None:
            raise TopicNotBound(f"application {application} is not bound to topic {topic!r} for pub; ask who runs psubd for a binding")
        bound = Bound(grant, binding, registered)
        if self._standing.get(id(grant)) is grant:
            self._bound[id(grant), topic] = bound
        return bound

    def may_subscribe(self, grant: Grant, topics: Sequence[str] | None) -> dict[str, Binding]:
        application = self._present(grant, "subscribe")
        asked_for = (application, None if topics is None else tuple(topics))
        opened = self._opened.get(asked_for)
        if opened is not None:
            return opened
        bound = self.index.bindings.get(application, {})
        if topics is None:
            asked = {topic: binding for topic, binding in bound.items() if binding.sub and topic in self.index.topics}
        else:
            asked = {topic: self._for_sub(application, bound, topic) for topic in topics}
        if not asked:
            raise TopicNotBound(f"application {application} is bound to no topic for sub; ask who runs psubd for a binding")
        if all(binding.rate is None for binding in asked.values()):
            return self._open(asked_for, asked)
        return self._out_of_debt(asked)

    def _open(self, asked_for: tuple[str, tuple[str, ...] | None], asked: dict[str, Binding]) -> dict[str, Binding]:
        """Keep what is asked again and again. The same dictionary comes back as long as nothing has changed."""
        names = len(asked) + 1
        if self._opened_names + names > MOST_OPENED:
            self._close()
        self._opened_names += names
        self._opened[asked_for] = asked
        return asked

    def _close(self) -> None:
        self._opened.clear()
        self._opened_names = 0

    def spent(self, application: str, topic: str, messages: int, size: int) -> None:
        binding = self.index.bindings.get(application, {}).get(topic)
        meter = None if binding is None else self._meter("subscribe", binding)
        if meter is not None:
            meter.spend(messages, size, self._clock.elapsed_ms())

    def _present(self, grant: Grant, direction: Direction) -> str:
        """The id of the grant's application. :raises BadCredentials: where the grant is not for that, or no longer holds."""
        if self._stale is not None:
            self._check_age()
        if self._standing.get(id(grant)) is grant and grant.kind == direction:
            return grant.application.id
        application = self.index.applications.get(grant.application.id)
        if grant.kind != direction or application is None or application.serial != grant.application.serial:
            refuse()
        for shown in grant.digests:
            held = self.index.keys.get(shown)
            if held is None or held.application != application.id or not self._stands(held.key):
                refuse()
        return application.id

    def _check_age(self) -> None:
        """:raises RegistryUnavailable: what was revoked since would still count."""
        why = None if self._stale is None else self._stale()
        if why is not None:
            raise RegistryUnavailable(why)

    def _for_sub(self, application: str, bound: dict[str, Binding], topic: str) -> Binding:
        binding = bound.get(topic)
        if binding is None or not binding.sub or topic not in self.index.topics:
            raise TopicNotBound(f"application {application} is not bound to topic {topic!r} for sub; ask who runs psubd for a binding")
        return binding

    def _out_of_debt(self, asked: dict[str, Binding]) -> dict[str, Binding]:
        now = self._clock.elapsed_ms()
        left: dict[str, Binding] = {}
        refusals: list[RateLimited] = []
        for topic, binding in asked.items():
            meter = self._meter("subscribe", binding)
            refusal = None if meter is None else meter.debt(now)
            if refusal is None:
                left[topic] = binding
            else:
                refusals.append(refusal)
        if not left:
            raise min(refusals, key=lambda refusal: refusal.retry_after)
        return left

    # --- how often

    def _meter(self, direction: Direction, binding: Binding) -> Meter | None:
        return None if binding.rate is None else self._metered(direction, binding)

    def _metered(self, direction: Direction, binding: Binding) -> Meter:
        assert binding.rate is not None
        own = self._meters.setdefault(binding.application, {})
        meter = own.get((direction, binding.topic))
        if meter is None or meter.serial != binding.serial or meter.rate != binding.rate:
            now, former = self._clock.elapsed_ms(), meter
            meter = own[direction, binding.topic] = Meter(binding.rate, binding.serial, f"topic {binding.topic}", now)
            if former is not None and former.serial == binding.serial:
                meter.follow(former, now)
        return meter

    def _drop_meters(self, application: str) -> None:
        own, bound = self._meters.get(application, {}), self.index.bindings.get(application, {})
        for direction, topic in list(own):
            if topic not in bound or bound[topic].rate is None:
                del own[direction, topic]
        if not own:
            self._meters.pop(application, None)

    # --- what changes

    def watch(self, application: str, changed: Callable[[], None]) -> Callable[[], None]:
        return self._watches.add(application, changed)

    def _follow(self, change: Change) -> None:
        snapshot = self._registry.snapshot()
        touched: set[str] = set()
        for path in change.paths:
            touched |= self.index.update(snapshot, path)
        self._changed()
        for application in sorted(touched):
            self._drop_meters(application)
            self._watches.tell(application)

    def _changed(self) -> None:
        self.serial += 1
        self._close()
        self._forget()

    def _ends_of(self, application: str) -> list[int]:
        found = self.index.applications.get(application)
        return [] if found is None else [key.until_ms for _, key in keys_of(found) if key.until_ms is not None]

    # --- what else is known

    def topic(self, name: str) -> Topic | None:
        return self.index.topics.get(name)

    def bindings_of(self, topic: str) -> dict[str, Binding]:
        return dict(self.index.by_topic.get(topic, {}))


class Bound:
    """A grant's binding to a topic for pub."""

    __slots__ = ("binding", "grant", "topic")

    def __init__(self, grant: Grant, binding: Binding, topic: Topic) -> None:
        self.grant, self.binding, self.topic = grant, binding, topic


def pubkey_of(application: Application, shown: str) -> Key:
    """The application's pubkey that was shown. :raises BadCredentials: it has no such one."""
    sought = digest(shown)
    for key in application.pubkeys:
        if hmac.compare_digest(key.digest, sought):
            return key
    refuse()


def refuse() -> NoReturn:
    """The one answer to all that does not get in: nobody learns which part was wrong."""
    raise BadCredentials("the credentials are missing, not valid (any more), or not of the kind that this route takes")
