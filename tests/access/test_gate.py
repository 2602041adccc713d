"""The gate: who gets in, what for, how often; and what hears of changes."""

from collections.abc import Callable
from typing import Any

import msgspec
from twisted.trial.unittest import SynchronousTestCase
from zope.interface.verify import verifyObject

from psubd.access import gate as gate_module
from psubd.access.gate import Gate
from psubd.access.index import Index
from psubd.access.watches import LONGEST_MS
from psubd.errors import BadCredentials, RateLimited, RegistryUnavailable, TopicNotBound
from psubd.interfaces import Delete, IGate, ISnapshot, Plan, Put
from psubd.keys import digest
from psubd.model import Application, Binding, Bindings, Credentials, Grant, Key, Rate, Topic
from psubd.testing.clock import FakeClock
from psubd.testing.registry import MemoryRegistry


def application(id: str, serial: int = 1, **kinds: tuple[Key, ...]) -> Application:
    """An application with the keys ``pk_<id>``, ``ps_<id>``, ``sk_<id>`` where no others are given."""
    keys = {f"{kind}s": (Key(digest(f"{prefix}_{id}")),) for kind, prefix in (("pubkey", "pk"), ("secret", "ps"), ("subkey", "sk"))}
    return Application(id, id, serial, 0, **{**keys, **kinds})


def topic(id: str, owner: str = "shop", serial: int = 1) -> Topic:
    return Topic(id, owner, serial, 0, f"uid-{id}-{serial}", 1, 1, None, None, "delete", None, {}, False)


class GateCase(SynchronousTestCase):
    """Two applications: ``shop`` may publish and subscribe on ``orders``; ``bank`` publishes on ``money`` and subscribes on ``orders``."""

    def setUp(self) -> None:
        self.clock = FakeClock()
        self.registry = MemoryRegistry(self.clock)
        self.successResultOf(self.registry.start())
        self.put("/topics/orders", topic("orders"))
        self.put("/topics/money", topic("money", "bank"))
        self.put("/applications/shop", application("shop"))
        self.put("/applications/bank", application("bank"))
        self.bind("shop", Binding("shop", "orders", 1, pub=True, sub=True))
        self.bind("bank", Binding("bank", "money", 1, pub=True), Binding("bank", "orders", 1, sub=True))
        self.gate = Gate(self.registry, self.clock)
        self.gate.start()
        self.addCleanup(self.gate.stop)

    def write(self, *writes: Put | Delete) -> None:
        def plan(snapshot: ISnapshot, serial: int) -> Plan:
            return Plan("x", writes)

        self.successResultOf(self.registry.change("tester", plan))

    def put(self, path: str, value: object) -> None:
        self.write(Put(path, msgspec.json.encode(value)))

    def bind(self, application: str, *bindings: Binding) -> None:
        self.put(f"/bindings/{application}", Bindings({binding.topic: binding for binding in bindings}))

    def publisher(self, id: str = "shop", secret: str | None = None) -> Grant:
        return self.gate.publisher(Credentials(identity=id, secret=secret or f"ps_{id}"))

    def subscriber(self, id: str = "shop") -> Grant:
        return self.gate.subscriber(Credentials(subkey=f"sk_{id}"))


class CredentialTests(GateCase):
    """Who gets in."""

    def test_provides(self) -> None:
        """It provides what it says."""
        self.assertTrue(verifyObject(IGate, self.gate))

    def test_publisher(self) -> None:
        """Secret with the application's id or with its pubkey."""
        for identity in ("shop", "pk_shop"):
            grant = self.gate.publisher(Credentials(identity=identity, secret="ps_shop"))
            self.assertEqual((grant.application.id, grant.kind, grant.until_ms), ("shop", "publish", None))
            self.assertEqual(set(grant.bindings), {"orders"})

    def test_subscriber(self) -> None:
        """The subkey alone, or with an identity that is the same application's."""
        for identity in (None, "shop", "pk_shop"):
            grant = self.gate.subscriber(Credentials(identity=identity, subkey="sk_shop"))
            self.assertEqual((grant.application.id, grant.kind), ("shop", "subscribe"))

    def test_all_three(self) -> None:
        """Who sends all of it everywhere gets in at both: each takes what it needs."""
        shown = Credentials(identity="pk_shop", secret="ps_shop", subkey="sk_shop")
        self.assertEqual(self.gate.publisher(shown).kind, "publish")
        self.assertEqual(self.gate.subscriber(shown).kind, "subscribe")

    def test_refused_alike(self) -> None:
        """Unknown, wrong, another's, of another kind, missing, odd: one answer for all of them, that names none of it."""
        said = set()
        for identity, secret in (
            ("shop", "ps_bank"),
            ("bank", "ps_shop"),
            ("pk_bank", "ps_shop"),
            ("shop", "sk_shop"),
            ("shop", "pk_shop"),
            ("pk_shop", "pk_shop"),
            ("shop", "ps_none"),
            ("none", "ps_shop"),
            ("ps_shop", "ps_shop"),
            ("", "ps_shop"),
            ("shop", ""),
            (None, "ps_shop"),
            ("shop", None),
            (None, None),
            ("SHOP", "ps_shop"),
            ("shop", "ps_shop "),
            ("shop", "ps_\udcff\u00e9"),
            ("shop\x00", "ps_shop"),
            ("shop", digest("ps_shop")),
        ):
            with self.assertRaises(BadCredentials, msg=f"{identity} {secret}") as caught:
                self.gate.publisher(Credentials(identity=identity, secret=secret))
            said.add((caught.exception.detail, caught.exception.challenge))
        for identity, subkey in (
            (None, None),
            (None, "ps_shop"),
            (None, "pk_shop"),
            (None, "sk_none"),
            ("bank", "sk_shop"),
            ("pk_bank", "sk_shop"),
            ("sk_shop", "sk_shop"),
            ("", "sk_shop"),
            ("shop", None),
        ):
            with self.assertRaises(BadCredentials, msg=f"{identity} {subkey}") as caught:
                self.gate.subscriber(Credentials(identity=identity, subkey=subkey))
            said.add((caught.exception.detail, caught.exception.challenge))
        self.assertEqual(len(said), 1)
        self.assertNotIn("shop", said.pop()[0])

    def test_an_application_named_like_a_key(self) -> None:
        """An application whose id is another's pubkey is not the other."""
        self.put("/applications/pk_shop", application("pk_shop"))
        self.assertEqual(self.publisher("pk_shop", "ps_pk_shop").application.id, "pk_shop")
        self.assertEqual(self.publisher("pk_shop", "ps_shop").application.id, "shop")
        with self.assertRaises(BadCredentials):
            self.publisher("pk_pk_shop", "ps_shop")

    def test_rotation(self) -> None:
        """Both keys get in while they overlap; the old one until the very millisecond, by the wall clock."""
        now = self.clock.epoch_ms()
        self.put("/applications/shop", application("shop", secrets=(Key(digest("ps_new")), Key(digest("ps_shop"), now + 5000))))
        self.assertEqual(self.publisher().until_ms, now + 5000)
        self.assertIsNone(self.publisher(secret="ps_new").until_ms)
        self.clock.advance(4999)
        self.publisher()
        self.clock.advance(1)
        with self.assertRaises(BadCredentials):
            self.publisher()
        self.publisher(secret="ps_new")

    def test_an_ended_pubkey(self) -> None:
        """An ended pubkey is none; the grant ends with whichever of the shown keys ends first."""
        now = self.clock.epoch_ms()
        ending = (Key(digest("pk_new")), Key(digest("pk_shop"), now + 5000))
        self.put("/applications/shop", application("shop", pubkeys=ending, secrets=(Key(digest("ps_shop"), now + 9000),)))
        self.assertEqual(self.publisher("shop").until_ms, now + 9000)
        grant = self.gate.publisher(Credentials(identity="pk_shop", secret="ps_shop"))
        self.assertEqual(grant.until_ms, now + 5000)
        self.gate.may_publish(grant, "orders", 1, 1)
        self.clock.advance(5000)
        with self.assertRaises(BadCredentials):
            self.gate.may_publish(grant, "orders", 1, 1)
        with self.assertRaises(BadCredentials):
            self.gate.publisher(Credentials(identity="pk_shop", secret="ps_shop"))
        self.gate.publisher(Credentials(identity="pk_new", secret="ps_shop"))

    def test_grant_of(self) -> None:
        """An application's standing without a credential; none for one that is not there."""
        self.assertEqual(set(self.gate.grant_of("bank").bindings), {"money", "orders"})
        self.assertIsNone(self.gate.grant_of("none"))
        self.assertEqual(set(self.gate.may_subscribe(self.gate.grant_of("bank"), None)), {"orders"})

    def test_nothing_secret_is_shown(self) -> None:
        """No key and no digest in the text of a grant, of credentials, or of a refusal."""
        shown = Credentials(identity="pk_shop", secret="ps_shop", subkey="sk_shop")
        grant = self.gate.publisher(shown)
        for text in (repr(shown), repr(grant), str(grant), repr(grant.application), repr(self.gate)):
            for kept in ("ps_shop", "sk_shop", digest("ps_shop"), digest("sk_shop")):
                self.assertNotIn(kept, text)


class StandingTests(GateCase):
    """What a grant may do at this moment."""

    def test_may_publish(self) -> None:
        """On a topic that it is bound to for pub."""
        self.assertEqual(self.gate.may_publish(self.publisher(), "orders", 1, 10).id, "orders")

    def test_may_not_publish(self) -> None:
        """Bound for sub only, bound to another topic, or a topic that is not there: one answer but for the name."""
        self.put("/topics/other", topic("other"))
        said = set()
        for name in ("orders", "none", "other"):
            with self.assertRaises(TopicNotBound) as caught:
                self.gate.may_publish(self.publisher("bank"), name, 1, 1)
            said.add(caught.exception.detail.replace(name, "*"))
        self.assertEqual(len(said), 1)

    def test_may_subscribe(self) -> None:
        """All that it is bound to for sub, or the named ones."""
        self.assertEqual(set(self.gate.may_subscribe(self.subscriber("bank"), None)), {"orders"})
        self.assertEqual(set(self.gate.may_subscribe(self.subscriber("bank"), ["orders"])), {"orders"})

    def test_may_not_subscribe(self) -> None:
        """A named topic that is not bound for sub refuses the whole; with none bound at all there is nothing to wait for."""
        for names in (["money"], ["orders", "none"], ["none"], []):
            with self.assertRaises(TopicNotBound):
                self.gate.may_subscribe(self.subscriber("bank"), names)
        self.bind("shop", Binding("shop", "orders", 1, pub=True))
        with self.assertRaises(TopicNotBound):
            self.gate.may_subscribe(self.subscriber("shop"), None)

    def test_kinds_do_not_stand_for_each_other(self) -> None:
        """A publisher's grant subscribes to nothing, and the other way round."""
        with self.assertRaises(BadCredentials):
            self.gate.may_subscribe(self.publisher(), None)
        with self.assertRaises(BadCredentials):
            self.gate.may_publish(self.subscriber(), "orders", 1, 1)

    def test_the_moment_counts(self) -> None:
        """A grant in hand does what the registry says now, not what it said then."""
        publisher, subscriber = self.publisher(), self.subscriber()
        self.bind("shop", Binding("shop", "money", 2, pub=True, sub=True))
        self.assertEqual(set(self.gate.may_subscribe(subscriber, None)), {"money"})
        self.gate.may_publish(publisher, "money", 1, 1)
        with self.assertRaises(TopicNotBound):
            self.gate.may_publish(publisher, "orders", 1, 1)
        self.write(Delete("/bindings/shop"))
        with self.assertRaises(TopicNotBound):
            self.gate.may_subscribe(subscriber, None)

    def test_another_application_of_that_name(self) -> None:
        """A grant is worth nothing once its application is gone, also where one of that id was made again with the same keys."""
        publisher, subscriber, standing = self.publisher(), self.subscriber(), self.gate.grant_of("shop")
        self.write(Delete("/applications/shop"))
        for _ in range(2):
            with self.assertRaises(BadCredentials):
                self.gate.may_publish(publisher, "orders", 1, 1)
            for grant in (subscriber, standing):
                with self.assertRaises(BadCredentials):
                    self.gate.may_subscribe(grant, None)
            self.put("/applications/shop", application("shop", serial=99))
        self.gate.may_publish(self.publisher(), "orders", 1, 1)

    def test_the_key_is_gone(self) -> None:
        """A grant whose key was rotated away is worth nothing at once."""
        subscriber, publisher = self.subscriber(), self.publisher()
        self.put("/applications/shop", application("shop", subkeys=(Key(digest("sk_new")),)))
        with self.assertRaises(BadCredentials):
            self.gate.may_subscribe(subscriber, None)
        self.gate.may_publish(publisher, "orders", 1, 1)

    def test_a_key_that_moved(self) -> None:
        """A digest that another application has now does not keep a grant alive."""
        subscriber = self.subscriber()
        self.put("/applications/shop", application("shop", subkeys=()))
        self.put("/applications/bank", application("bank", subkeys=(Key(digest("sk_shop")),)))
        with self.assertRaises(BadCredentials):
            self.gate.may_subscribe(subscriber, None)

    def test_a_topic_that_is_gone(self) -> None:
        """A topic that is registered no more is bound to nobody."""
        self.write(Delete("/topics/orders"))
        self.assertIsNone(self.gate.topic("orders"))
        with self.assertRaises(TopicNotBound):
            self.gate.may_publish(self.publisher(), "orders", 1, 1)
        with self.assertRaises(TopicNotBound):
            self.gate.may_subscribe(self.subscriber(), None)

    def test_bindings_of(self) -> None:
        """A topic's bindings by application, as they are now; the answer is the caller's own."""
        found = self.gate.bindings_of("orders")
        self.assertEqual(set(found), {"shop", "bank"})
        found.clear()
        self.bind("shop", Binding("shop", "money", 2, pub=True))
        self.assertEqual(set(self.gate.bindings_of("orders")), {"bank"})
        self.assertEqual(set(self.gate.bindings_of("money")), {"shop", "bank"})
        self.write(Delete("/bindings/bank"))
        self.assertEqual(self.gate.bindings_of("orders"), {})

    def test_stopped(self) -> None:
        """A stopped gate follows no more."""
        self.gate.stop()
        self.write(Delete("/topics/orders"))
        self.assertIsNotNone(self.gate.topic("orders"))

    def test_what_cannot_be_read(self) -> None:
        """An entry that cannot be read shuts out its own application only."""
        self.write(Put("/applications/shop", b"{not json"))
        with self.assertRaises(BadCredentials):
            self.publisher("shop")
        self.publisher("bank")
        gate = Gate(self.registry, self.clock)
        gate.start()
        self.assertIsNone(gate.grant_of("shop"))
        self.assertIsNotNone(gate.grant_of("bank"))


class KeptTests(GateCase):
    """What is kept for the next request says nothing that is not so any more."""

    def test_the_same_grant(self) -> None:
        """As long as nothing changes, the same credentials give the same grant; others give another one."""
        grant = self.publisher()
        self.assertIs(grant, self.publisher())
        self.assertIsNot(grant, self.gate.publisher(Credentials("pk_shop", "ps_shop")))
        self.assertIsNot(grant, self.subscriber())
        serial = self.gate.serial
        self.put("/topics/other", topic("other"))
        self.assertGreater(self.gate.serial, serial)
        self.assertEqual(grant, self.publisher())
        self.assertIsNot(grant, self.publisher())

    def test_asked_again_after_each_change(self) -> None:
        """A grant that has published before is judged by what is registered now: bindings, topics, keys, application."""
        for change, refusal in (
            (lambda: self.bind("shop", Binding("shop", "orders", 2, sub=True)), TopicNotBound),
            (lambda: self.write(Delete("/topics/orders")), TopicNotBound),
            (lambda: self.put("/applications/shop", application("shop", secrets=())), BadCredentials),
            (lambda: self.put("/applications/shop", application("shop", serial=7)), BadCredentials),
            (lambda: self.write(Delete("/applications/shop")), BadCredentials),
        ):
            self.put("/applications/shop", application("shop"))
            self.put("/topics/orders", topic("orders"))
            self.bind("shop", Binding("shop", "orders", 1, pub=True, sub=True))
            publisher = self.publisher()
            for _ in range(3):
                self.gate.may_publish(publisher, "orders", 1, 1)
            change()
            with self.assertRaises(refusal):
                self.gate.may_publish(publisher, "orders", 1, 1)

    def test_the_topic_of_now(self) -> None:
        """A topic that was made again is the new one."""
        publisher = self.publisher()
        self.gate.may_publish(publisher, "orders", 1, 1)
        self.put("/topics/orders", topic("orders", serial=5))
        self.assertEqual(self.gate.may_publish(publisher, "orders", 1, 1).serial, 5)

    def test_an_end_by_the_clock(self) -> None:
        """Credentials of which one ends are looked up each time, and so is what their grant may do."""
        end = self.clock.epoch_ms() + 1000
        self.put("/applications/shop", application("shop", secrets=(Key(digest("ps_new")), Key(digest("ps_shop"), end))))
        publisher, lasting = self.publisher(), self.publisher(secret="ps_new")
        self.gate.may_publish(publisher, "orders", 1, 1)
        self.clock.advance(1000)
        self.assertRaises(BadCredentials, self.publisher)
        self.assertRaises(BadCredentials, self.gate.may_publish, publisher, "orders", 1, 1)
        self.gate.may_publish(lasting, "orders", 1, 1)

    def test_rates_are_judged_each_time(self) -> None:
        """What is known to be bound is still counted."""
        self.bind("shop", Binding("shop", "orders", 1, pub=True, rate=Rate(messages_per_s=3)))
        publisher = self.publisher()
        for _ in range(3):
            self.gate.may_publish(publisher, "orders", 1, 1)
        self.assertRaises(RateLimited, self.gate.may_publish, publisher, "orders", 1, 1)

    def test_kinds(self) -> None:
        """A grant that is kept for one trade does nothing in the other."""
        publisher, subscriber = self.publisher(), self.subscriber()
        for _ in range(2):
            self.assertRaises(BadCredentials, self.gate.may_publish, subscriber, "orders", 1, 1)
            self.assertRaises(BadCredentials, self.gate.may_subscribe, publisher, None)
            self.gate.may_publish(publisher, "orders", 1, 1)
            self.gate.may_subscribe(subscriber, None)

    def test_bounded(self) -> None:
        """However many credentials are shown, a bounded number of grants is kept; those in hand go on, those that are wrong take no room."""
        self.patch(gate_module, "MOST_KNOWN", 10)
        self.put("/applications/shop", application("shop", pubkeys=tuple(Key(digest(f"pk_{number}")) for number in range(25))))
        grants = [self.gate.publisher(Credentials(f"pk_{number}", "ps_shop")) for number in range(25)]
        for grant in grants:
            self.gate.may_publish(grant, "orders", 1, 1)
        for number in range(25):
            self.assertRaises(BadCredentials, self.gate.publisher, Credentials("shop", f"ps_{number}"))
        self.assertLessEqual(len(self.gate._known["publish"]), 10)
        self.assertLessEqual(len(self.gate._bound), 25)


class AgeTests(GateCase):
    """What is known of the registry may be too old."""

    def test_stale(self) -> None:
        """Nobody gets in by it, and no grant counts any more, until it is known anew; what the refusal says is why."""
        why: list[str] = []
        gate = Gate(self.registry, self.clock, stale=lambda: why[0] if why else None)
        gate.start()
        publisher = gate.publisher(Credentials(identity="shop", secret="ps_shop"))
        subscriber = gate.subscriber(Credentials(subkey="sk_shop"))
        for _ in range(2):
            gate.may_publish(publisher, "orders", 1, 1)
            gate.may_subscribe(subscriber, None)
        why.append("too old")
        for refused in (
            lambda: gate.publisher(Credentials(identity="shop", secret="ps_shop")),
            lambda: gate.subscriber(Credentials(subkey="sk_shop")),
            lambda: gate.subscriber(Credentials(subkey="sk_nobody")),
            lambda: gate.may_publish(publisher, "orders", 1, 1),
            lambda: gate.may_subscribe(subscriber, None),
        ):
            self.assertEqual(self.assertRaises(RegistryUnavailable, refused).detail, "too old")
        why.clear()
        self.assertEqual(gate.may_publish(publisher, "orders", 1, 1).id, "orders")
        self.assertIn("orders", gate.may_subscribe(subscriber, None))


class RateTests(GateCase):
    """How often."""

    def limit(self, serial: int = 1, **rate: int) -> None:
        self.bind("shop", Binding("shop", "orders", serial, pub=True, sub=True, rate=Rate(**rate)))

    def test_publish(self) -> None:
        """Over the rate is refused, takes nothing, and passes when its time has come."""
        self.limit(messages_per_s=2)
        grant = self.publisher()
        self.gate.may_publish(grant, "orders", 2, 100)
        for _ in range(3):
            with self.assertRaises(RateLimited):
                self.gate.may_publish(grant, "orders", 1, 1)
        self.clock.advance(500)
        self.gate.may_publish(grant, "orders", 1, 1)

    def test_a_large_message(self) -> None:
        """A message of more bytes than the whole burst passes when nothing else did."""
        self.limit(bytes_per_s=1000)
        grant = self.publisher()
        self.gate.may_publish(grant, "orders", 1, 5000)
        self.clock.advance(4999)
        with self.assertRaises(RateLimited):
            self.gate.may_publish(grant, "orders", 1, 5000)
        self.clock.advance(1)
        self.gate.may_publish(grant, "orders", 1, 5000)

    def test_directions_are_apart(self) -> None:
        """What was read takes nothing from what may be published, and no application from another."""
        self.limit(messages_per_s=1)
        self.gate.spent("shop", "orders", 50, 1)
        self.gate.may_publish(self.publisher(), "orders", 1, 1)
        self.gate.may_subscribe(self.subscriber("bank"), None)

    def test_topics_in_debt_are_left_out(self) -> None:
        """Reading goes into debt; a topic in debt is left out, and with none left the refusal says when the first comes back."""
        self.put("/topics/more", topic("more"))
        rate = Rate(messages_per_s=1)
        self.bind("shop", Binding("shop", "orders", 1, sub=True, rate=rate), Binding("shop", "more", 1, sub=True, rate=rate))
        grant = self.subscriber()
        self.gate.spent("shop", "orders", 11, 1)
        self.assertEqual(set(self.gate.may_subscribe(grant, None)), {"more"})
        with self.assertRaises(RateLimited) as caught:
            self.gate.may_subscribe(grant, ["orders"])
        self.gate.spent("shop", "more", 3, 1)
        with self.assertRaises(RateLimited) as caught:
            self.gate.may_subscribe(grant, None)
        self.assertEqual(caught.exception.retry_after, 3)
        self.clock.advance(2001)
        self.assertEqual(set(self.gate.may_subscribe(grant, None)), {"more"})

    def test_rate_changes(self) -> None:
        """A new rate counts at once; the debt stays. A binding made again owes nothing. None bounds nothing."""
        self.limit(messages_per_s=10)
        self.gate.spent("shop", "orders", 30, 0)
        self.limit(messages_per_s=1)
        with self.assertRaises(RateLimited) as caught:
            self.gate.may_subscribe(self.subscriber(), None)
        self.assertEqual(caught.exception.limit, 1)
        self.write(Delete("/bindings/shop"))
        self.limit(serial=9, messages_per_s=1)
        self.gate.may_subscribe(self.subscriber(), None)
        self.bind("shop", Binding("shop", "orders", 9, pub=True, sub=True))
        self.gate.may_publish(self.publisher(), "orders", 10**6, 10**9)

    def test_meters_go_with_their_bindings(self) -> None:
        """What nobody is bound to any more is not counted any more."""
        self.limit(messages_per_s=1)
        self.gate.may_publish(self.publisher(), "orders", 1, 1)
        self.gate.spent("shop", "orders", 1, 1)
        self.assertEqual(len(self.gate._meters["shop"]), 2)
        self.write(Delete("/bindings/shop"))
        self.assertEqual(self.gate._meters, {})
        self.gate.spent("shop", "orders", 1, 1)
        self.assertEqual(self.gate._meters, {})


class WatchTests(GateCase):
    """Who waits hears of what matters to it."""

    def watched(self, application: str = "shop") -> tuple[list[int], Callable[[], None]]:
        heard: list[int] = []
        end = self.gate.watch(application, lambda: heard.append(self.registry.snapshot().serial))
        return heard, end

    def test_hears(self) -> None:
        """Of its application, its bindings, their topics changed and gone: once a change, after the gate knows it."""
        heard, _ = self.watched()
        seen: list[Any] = []
        self.gate.watch("shop", lambda: seen.append(self.gate.topic("orders")))
        changes: list[tuple[str, object]] = [
            ("/applications/shop", application("shop")),
            ("/bindings/shop", Bindings({"orders": Binding("shop", "orders", 3, sub=True)})),
            ("/topics/orders", topic("orders", serial=2)),
        ]
        first = self.registry.snapshot().serial
        for path, value in changes:
            self.put(path, value)
        self.write(Delete("/topics/orders"))
        self.write(Delete("/bindings/shop"), Delete("/applications/shop"))
        self.assertEqual(heard, [first + n for n in range(1, 6)])
        self.assertEqual([None if now is None else now.serial for now in seen], [1, 1, 2, None, None])

    def test_does_not_hear(self) -> None:
        """Of other applications, other topics, groups and tokens."""
        heard, _ = self.watched()
        self.put("/applications/bank", application("bank"))
        self.bind("bank", Binding("bank", "orders", 3, sub=True))
        self.put("/topics/money", topic("money", serial=2))
        self.write(Put("/groups/shop", b"{}"), Put("/tokens/t", b"{}"), Put("/secrets/s", b"x"))
        self.assertEqual(heard, [])

    def test_ended(self) -> None:
        """An ended watch hears nothing, also one that another one ends; ending twice does nothing; others go on."""
        heard, end = self.watched()
        others, _ = self.watched()
        end()
        end()
        self.put("/applications/shop", application("shop"))
        self.assertEqual((heard, len(others)), ([], 1))
        ends: list[Callable[[], None]] = []
        later: list[int] = []
        self.gate.watch("bank", lambda: ends[0]())
        ends.append(self.gate.watch("bank", lambda: later.append(1)))
        self.put("/applications/bank", application("bank"))
        self.assertEqual(later, [])

    def test_a_watcher_that_raises(self) -> None:
        """It harms neither the change nor the others, and is logged."""
        self.gate.watch("shop", lambda: 1 // 0)
        heard, _ = self.watched()
        self.put("/applications/shop", application("shop"))
        self.assertEqual(len(heard), 1)
        self.assertEqual(len(self.flushLoggedErrors(ZeroDivisionError)), 1)

    def test_a_key_ends(self) -> None:
        """Watchers hear when a key ends by the clock, and of the next one that ends; nothing else wakes them."""
        now = self.clock.epoch_ms()
        keys = (Key(digest("sk_new")), Key(digest("sk_shop"), now + 3000))
        heard, _ = self.watched()
        self.put("/applications/shop", application("shop", subkeys=keys, secrets=(Key(digest("s")), Key(digest("ps_shop"), now + 8000))))
        heard.clear()
        self.clock.advance(2999)
        self.assertEqual(heard, [])
        self.clock.advance(1)
        self.assertEqual(len(heard), 1)
        self.clock.advance(4999)
        self.assertEqual(len(heard), 1)
        self.clock.advance(1)
        self.assertEqual(len(heard), 2)
        self.assertEqual(self.clock.reactor.getDelayedCalls(), [])

    def test_the_end_is_moved(self) -> None:
        """A change resets the timer; an end that was taken back wakes nobody. A watch that comes later is woken too."""
        now = self.clock.epoch_ms()
        self.put("/applications/shop", application("shop", subkeys=(Key(digest("a")), Key(digest("b"), now + 3000))))
        heard, end = self.watched()
        self.put("/applications/shop", application("shop", subkeys=(Key(digest("a")), Key(digest("b"), now + 6000))))
        heard.clear()
        self.clock.advance(5999)
        self.assertEqual(heard, [])
        self.clock.advance(1)
        self.assertEqual(len(heard), 1)
        end()

    def test_no_timer_is_left(self) -> None:
        """The last watch of an application takes its timer along, and a stop takes all."""
        now = self.clock.epoch_ms()
        self.put("/applications/shop", application("shop", subkeys=(Key(digest("a")), Key(digest("b"), now + 3000))))
        _, end = self.watched()
        self.assertEqual(len(self.clock.reactor.getDelayedCalls()), 1)
        end()
        self.assertEqual(self.clock.reactor.getDelayedCalls(), [])
        self.watched()
        self.gate.stop()
        self.assertEqual(self.clock.reactor.getDelayedCalls(), [])

    def test_the_wall_clock_jumps(self) -> None:
        """A wall clock that jumps ahead ends a key early; who waits hears of it within the longest timer."""
        now = self.clock.epoch_ms()
        self.put("/applications/shop", application("shop", subkeys=(Key(digest("a")), Key(digest("b"), now + 86_400_000))))
        heard, _ = self.watched()
        self.clock.epoch += 86_400_000
        self.clock.advance(LONGEST_MS)
        self.assertEqual(len(heard), 1)


class Counting(dict):
    """A dict that counts what is done with it."""

    def __init__(self, counted: dict, tally: list[int]) -> None:
        super().__init__(counted)
        self.tally = tally

    def counted(name: str):
        def method(self, *args):
            self.tally[0] += 1
            return getattr(dict, name)(self, *args)

        return method

    __getitem__, __setitem__, __delitem__ = counted("__getitem__"), counted("__setitem__"), counted("__delitem__")
    get, pop, setdefault = counted("get"), counted("pop"), counted("setdefault")

    def everything(self, *args):
        raise AssertionError("the whole index was gone through")

    __iter__ = keys = values = items = everything


class CountingSnapshot:
    """A snapshot that counts what is read from it."""

    def __init__(self, snapshot: ISnapshot) -> None:
        self.snapshot, self.reads = snapshot, 0

    def get(self, path: str):
        self.reads += 1
        return self.snapshot.get(path)

    def children(self, parent: str):
        raise AssertionError("the whole registry was gone through")


class SizeTests(SynchronousTestCase):
    """Many applications and bindings."""

    def setUp(self) -> None:
        self.clock = FakeClock()
        self.registry = MemoryRegistry(self.clock)
        self.successResultOf(self.registry.start())
        writes = [Put(f"/topics/t{n}", msgspec.json.encode(topic(f"t{n}"))) for n in range(100)]
        for n in range(10_000):
            items = {f"t{t}": Binding(f"a{n}", f"t{t}", 1, pub=True, sub=True) for t in range(n % 91, n % 91 + 10)}
            writes.append(Put(f"/applications/a{n}", msgspec.json.encode(application(f"a{n}"))))
            writes.append(Put(f"/bindings/a{n}", msgspec.json.encode(Bindings(items))))
        self.successResultOf(self.registry.change("tester", lambda snapshot, serial: Plan("x", tuple(writes))))

    def test_incremental(self) -> None:
        """With 10,000 applications and 100,000 bindings a change costs some dozens of look-ups, and reads its own paths only."""
        index = Index()
        index.load(self.registry.snapshot())
        self.assertEqual(sum(len(bound) for bound in index.by_topic.values()), 100_000)
        self.assertEqual(len(index.keys), 30_000)
        tally = [0]
        for name in ("applications", "bindings", "by_topic", "keys", "topics"):
            setattr(index, name, Counting(getattr(index, name), tally))
        snapshot = CountingSnapshot(self.registry.snapshot())
        one = {"t5": Binding("a7", "t5", 2, pub=True), "t99": Binding("a7", "t99", 2, sub=True)}
        changes = [
            Put("/applications/a7", msgspec.json.encode(application("a7", serial=2))),
            Put("/bindings/a7", msgspec.json.encode(Bindings(one))),
            Delete("/bindings/a9"),
            Delete("/applications/a9"),
            Put("/topics/t98", msgspec.json.encode(topic("t98", serial=2))),
        ]
        self.successResultOf(self.registry.change("tester", lambda s, n: Plan("x", tuple(changes))))
        for change in changes:
            tally[0] = snapshot.reads = 0
            index.update(snapshot, change.path)
            self.assertEqual(snapshot.reads, 1)
            self.assertTrue(0 < tally[0] <= 40, (change.path, tally[0]))

    def test_same_as_from_the_start(self) -> None:
        """After changes the index is the one that a start would build."""
        gate = Gate(self.registry, self.clock)
        gate.start()
        for n in range(0, 300, 3):
            items = {f"t{t}": Binding(f"a{n}", f"t{t}", 1, pub=True) for t in range(n % 7)}
            bound = Put(f"/bindings/a{n}", msgspec.json.encode(Bindings(items))) if items else Delete(f"/bindings/a{n}")
            writes = (bound, Delete(f"/applications/a{n + 1}"), Put(f"/applications/a{n + 2}", msgspec.json.encode(application("new", serial=5))))
            self.successResultOf(self.registry.change("tester", lambda s, i, writes=writes: Plan("x", writes)))
        fresh = Index()
        fresh.load(self.registry.snapshot())
        self.assertEqual(gate.index.bindings, fresh.bindings)
        self.assertEqual(gate.index.by_topic, fresh.by_topic)
        self.assertEqual(gate.index.applications, fresh.applications)

    def test_the_hot_path_reads_memory_of_its_own(self) -> None:
        """Looking up credentials and standing asks the registry for nothing, not even its snapshot."""
        gate = Gate(self.registry, self.clock)
        gate.start()

        def nothing() -> ISnapshot:
            raise AssertionError("the registry was asked")

        self.registry.snapshot = nothing
        self.registry.change = self.registry.sync = nothing
        for n in (3, 500, 9999):
            publisher = gate.publisher(Credentials(identity=f"a{n}", secret=f"ps_a{n}"))
            subscriber = gate.subscriber(Credentials(subkey=f"sk_a{n}"))
            name = next(iter(publisher.bindings))
            gate.may_publish(publisher, name, 1, 1)
            gate.may_subscribe(subscriber, None)
            gate.spent(f"a{n}", name, 1, 1)
            gate.topic(name)
            gate.grant_of(f"a{n}")
            gate.bindings_of(name)
            gate.watch(f"a{n}", lambda: None)()
