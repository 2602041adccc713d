"""The registrar: applications, keys and tokens; what the tests of its other parts share."""

import re
from collections.abc import Callable, Mapping
from typing import Any, TypeVar

import msgspec
from twisted.internet.defer import CancelledError, Deferred
from twisted.python.failure import Failure
from twisted.trial.unittest import SynchronousTestCase
from zope.interface.verify import verifyObject

from psubd.access.gate import Gate
from psubd.errors import (
    BadBody,
    BadCredentials,
    ConfigError,
    Exists,
    InUse,
    NotFound,
    PsubdError,
    RegistryUnavailable,
    StorageUnavailable,
    VersionMismatch,
)
from psubd.interfaces import IRegistrar, Plan, Put
from psubd.keys import digest
from psubd.model import (
    Application,
    Binding,
    Bindings,
    Commit,
    Credentials,
    Group,
    GroupTopic,
    Instances,
    InstanceSpec,
    Record,
    Topic,
    TopicPartition,
    TopicSpec,
)
from psubd.services.registrar import Registrar
from psubd.storage.memory import MemoryStorage
from psubd.testing.clock import FakeClock
from psubd.testing.registry import MemoryRegistry

T = TypeVar("T")


class FaultyStorage(MemoryStorage):
    """A storage whose named calls fail with what the test says; every call is noted.

    :ivar before: called with a call's name before it is made.
    """

    def __init__(self, clock: FakeClock) -> None:
        super().__init__(clock)
        self.faults: dict[str, PsubdError] = {}
        self.calls: list[str] = []
        self.before: Callable[[str], None] = lambda name: None

    def meet(self, name: str) -> None:
        self.calls.append(name)
        self.before(name)
        if name in self.faults:
            raise self.faults[name]


def faulty(name: str) -> Callable[..., Any]:
    def call(self: FaultyStorage, *args: Any) -> Any:
        try:
            self.meet(name)
        except PsubdError as error:
            failed: Deferred[Any] = Deferred()
            failed.errback(Failure(error))
            return failed
        return getattr(MemoryStorage, name)(self, *args)

    return call


for _name in ("create_topic", "describe", "grow", "configure", "delete_topic", "commit", "forget", "bounds"):
    setattr(FaultyStorage, _name, faulty(_name))


class RegistrarCase(SynchronousTestCase):
    """A registrar over a registry and a storage in memory, with a gate to look through."""

    def setUp(self) -> None:
        self.clock = FakeClock()
        self.registry = MemoryRegistry(self.clock)
        self.wait(self.registry.start())
        self.storage = FaultyStorage(self.clock)
        self.wait(self.storage.start())
        self.addCleanup(lambda: self.wait(self.storage.stop()))
        self.registrar = Registrar(self.registry, self.storage, self.clock, 1_048_576)
        self.gate = Gate(self.registry, self.clock)
        self.gate.start()
        self.addCleanup(self.gate.stop)

    def wait(self, deferred: "Deferred[T]") -> T:
        results: list[T] = []
        failures: list[Failure] = []
        deferred.addCallbacks(results.append, failures.append)
        if failures:
            failures[0].raiseException()
        [result] = results
        return result

    def state(self) -> tuple[Any, Any, Any]:
        """All that registry and storage hold."""
        topics = {name: shelf.topic for name, shelf in self.storage._shelves.items()}
        places = {group: dict(kept) for group, kept in self.storage._places.items() if kept}
        return dict(self.registry._mirror.tree.entries()), topics, places

    def refused(self, error: type[T], call: Callable[[], "Deferred[Any]"]) -> T:
        """The refusal; registry and storage are unchanged by it."""
        before, serial = self.state(), self.registry.snapshot().serial
        with self.assertRaises(error) as caught:
            self.wait(call())
        self.assertEqual(self.state(), before)
        self.assertEqual(self.registry.snapshot().serial, serial)
        return caught.exception

    def entry(self, path: str, shape: type[T]) -> T:
        found = self.registry.snapshot().get(path)
        self.assertIsNotNone(found, path)
        return msgspec.json.decode(found.data, type=shape)

    def version(self, path: str) -> int:
        return self.registry.snapshot().get(path).version

    def what(self) -> list[str]:
        return [change.what for change in self.registry.history(0)]

    def application(self, id: str = "shop") -> dict[str, str]:
        return self.wait(self.registrar.create_application(id, id, "t"))[1]

    def topic(self, id: str = "orders", owner: str = "shop", partitions: int = 1, **more: Any) -> Topic:
        return self.wait(self.registrar.create_topic(TopicSpec(id, partitions, **more), owner, None, True, "t"))

    def bind(self, application: str = "shop", topic: str = "orders", **more: Any) -> Binding:
        return self.wait(self.registrar.put_binding(Binding(application, topic, 0, **more), "t", None))[0]

    def publish(self, topic: str = "orders", partition: int = 0, count: int = 1) -> None:
        self.wait(self.storage.publish([Record(topic, b"x", partition=partition, timestamp=self.clock.epoch_ms())] * count, "all"))

    def places(self, group: str) -> Mapping[TopicPartition, Commit]:
        return self.wait(self.storage.committed(group))

    def named_group(self, name: str, *topics: str) -> None:
        """A named group as the subscriber leaves it at its first read."""
        application = name.split(".")[0]
        bindings = self.entry(f"/bindings/{application}", Bindings).items
        stands = {topic: GroupTopic(self.entry(f"/topics/{topic}", Topic).uid, bindings[topic].mark) for topic in topics}
        group = msgspec.json.encode(Group(name, application, 1, 0, stands))
        self.wait(self.storage.commit(name, {TopicPartition(topic, 0): Commit(0, "x") for topic in topics}))
        self.wait(self.registry.change("t", lambda snapshot, serial: Plan("group.begun", (Put(f"/groups/{name}", group),))))

    def fill_bindings(self, application: str) -> None:
        """Give the application bindings until no other one fits at their path."""
        items: dict[str, Binding] = {}
        while True:
            name = f"t{len(items)}"
            items[name] = Binding(application, name, 1)
            if len(items) > 3000 and len(data := msgspec.json.encode(Bindings(items))) > 1_048_576 - 300:
                break
        self.wait(self.registry.change("t", lambda snapshot, serial: Plan("x", (Put(f"/bindings/{application}", data),))))


class ApplicationTests(RegistrarCase):
    """Applications and their keys."""

    def test_provides(self) -> None:
        """It provides what it says."""
        self.assertTrue(verifyObject(IRegistrar, self.registrar))

    def test_create(self) -> None:
        """An application gets three keys of their kinds, shown once; kept are their digests, and the pubkey's text."""
        application, keys = self.wait(self.registrar.create_application("shop", "The shop", "token ci"))
        self.assertEqual(set(keys), {"pubkey", "secret", "subkey"})
        for kind, prefix in (("pubkey", "pk_"), ("secret", "ps_"), ("subkey", "sk_")):
            self.assertTrue(re.fullmatch(prefix + "[A-Za-z0-9_-]{43}", keys[kind]), keys[kind])
            [kept] = getattr(application, f"{kind}s")
            self.assertEqual((kept.digest, kept.until_ms), (digest(keys[kind]), None))
        self.assertEqual(application.pubkeys[0].text, keys["pubkey"])
        self.assertEqual(self.entry("/applications/shop", Application), application)
        self.assertEqual((application.serial, application.name, application.created_ms), (1, "The shop", self.clock.epoch_ms()))
        self.assertEqual(self.what(), ["application.created shop"])
        self.assertEqual(self.registry.history(0)[0].actor, "token ci")
        self.assertEqual(self.gate.publisher(Credentials("shop", keys["secret"])).application, application)

    def test_no_secret_is_kept(self) -> None:
        """Neither the registry nor its history holds a secret or a subkey."""
        keys = self.application()
        _, token = self.wait(self.registrar.create_token("ci", "admin", "t"))
        for entry in self.state()[0].values():
            for secret in (keys["secret"], keys["subkey"], token):
                self.assertNotIn(secret.encode(), entry.data)
        self.assertNotIn("_", "".join(self.what()))

    def test_create_refused(self) -> None:
        """An id that is taken or none, a name that is none: refused, naming the field; nothing is changed."""
        self.application()
        self.refused(Exists, lambda: self.registrar.create_application("shop", "x", "t"))
        for id in ("", "a.b", "a/b", "a b", "x" * 65, "\u00e9", "a\n"):
            self.assertIn("id:", self.refused(BadBody, lambda id=id: self.registrar.create_application(id, "x", "t")).detail)
        for name in ("", " ", "x" * 201, "a\nb", "a\x00", "\u202e"):
            self.assertIn("name:", self.refused(BadBody, lambda name=name: self.registrar.create_application("new", name, "t")).detail)

    def test_two_tenants(self) -> None:
        """Two applications' keys are all different, and none opens the other's door."""
        shop, bank = self.application("shop"), self.application("bank")
        self.assertEqual(len({*shop.values(), *bank.values()}), 6)
        for identity in ("shop", shop["pubkey"]):
            self.gate.publisher(Credentials(identity, shop["secret"]))
            for wrong in (bank["secret"], bank["subkey"], bank["pubkey"], shop["subkey"], shop["pubkey"]):
                with self.assertRaises(BadCredentials):
                    self.gate.publisher(Credentials(identity, wrong))
            for wrong in (bank["subkey"], shop["secret"], bank["secret"]):
                with self.assertRaises(BadCredentials):
                    self.gate.subscriber(Credentials(identity, subkey=wrong))

    def test_rotate(self) -> None:
        """A new key; the old one overlaps for as long as was said, and not longer."""
        keys = self.application()
        _, new = self.wait(self.registrar.rotate("shop", "secret", 60, "t", None))
        for secret in (keys["secret"], new):
            self.gate.publisher(Credentials("shop", secret))
        self.clock.advance(60_000)
        with self.assertRaises(BadCredentials):
            self.gate.publisher(Credentials("shop", keys["secret"]))
        self.gate.publisher(Credentials("shop", new))
        self.assertEqual(self.what()[-1], "key.rotated shop/secret")

    def test_rotate_at_once(self) -> None:
        """Without an overlap the old key ends with the answer; the other kinds stay."""
        keys = self.application()
        for kind in ("secret", "subkey", "pubkey"):
            application, new = self.wait(self.registrar.rotate("shop", kind, 0, "t", None))
            self.assertEqual([key.digest for key in getattr(application, f"{kind}s")], [digest(new)])
        self.assertEqual(application.pubkeys[0].text, new)
        for shown in (Credentials(keys["pubkey"], keys["secret"]), Credentials("shop", keys["secret"])):
            with self.assertRaises(BadCredentials):
                self.gate.publisher(shown)
        with self.assertRaises(BadCredentials):
            self.gate.subscriber(Credentials(subkey=keys["subkey"]))

    def test_two_at_most(self) -> None:
        """A second rotation ends the oldest at once, whatever overlap it was promised; never are three valid."""
        keys = self.application()
        _, second = self.wait(self.registrar.rotate("shop", "subkey", 3600, "t", None))
        application, third = self.wait(self.registrar.rotate("shop", "subkey", 10, "t", None))
        self.assertEqual([key.digest for key in application.subkeys], [digest(third), digest(second)])
        with self.assertRaises(BadCredentials):
            self.gate.subscriber(Credentials(subkey=keys["subkey"]))
        self.clock.advance(10_000)
        with self.assertRaises(BadCredentials):
            self.gate.subscriber(Credentials(subkey=second))
        self.gate.subscriber(Credentials(subkey=third))

    def test_rotate_refused(self) -> None:
        """Not there, another version, an overlap or a kind that cannot be: refused, and the keys stay."""
        keys = self.application()
        self.refused(NotFound, lambda: self.registrar.rotate("none", "secret", 0, "t", None))
        self.refused(VersionMismatch, lambda: self.registrar.rotate("shop", "secret", 0, "t", 2))
        for overlap in (-1, 2_592_001):
            self.assertIn("overlap_s", self.refused(BadBody, lambda o=overlap: self.registrar.rotate("shop", "secret", o, "t", None)).detail)
        self.refused(BadBody, lambda: self.registrar.rotate("shop", "token", 0, "t", None))
        self.gate.publisher(Credentials("shop", keys["secret"]))
        self.wait(self.registrar.rotate("shop", "secret", 0, "t", 1))
        self.assertEqual(self.version("/applications/shop"), 2)

    def test_delete(self) -> None:
        """An application that owns nothing and is bound to nothing goes, with its groups; its keys open nothing."""
        keys = self.application()
        self.assertEqual(self.wait(self.registrar.delete_application("shop", False, "t", None))["bindings"], [])
        self.assertEqual(self.state(), ({}, {}, {}))
        with self.assertRaises(BadCredentials):
            self.gate.publisher(Credentials("shop", keys["secret"]))
        self.assertEqual(self.what()[-1], "application.deleted shop")

    def test_delete_with_instances(self) -> None:
        """Its consumer instances go along, also those of groups that never read; those of others stay."""
        for id in ("shop", "shop-2"):
            self.application(id)
        paths = ["/instances/shop", "/instances/shop.g", "/instances/shop-2.g"]
        writes = tuple(Put(path, msgspec.json.encode(Instances({"i": InstanceSpec(2)}))) for path in paths)
        self.wait(self.registry.change("t", lambda snapshot, serial: Plan("instance.created", writes)))
        self.wait(self.registrar.delete_application("shop", False, "t", None))
        self.assertEqual([path for path in paths if self.registry.snapshot().get(path) is not None], paths[2:])

    def test_delete_in_use(self) -> None:
        """While it owns a topic or is bound it stays, and the refusal names both."""
        self.application()
        self.application("bank")
        self.topic()
        self.bind("bank", sub=True)
        said = self.refused(InUse, lambda: self.registrar.delete_application("shop", False, "t", None)).detail
        self.assertIn("owns orders", said)
        said = self.refused(InUse, lambda: self.registrar.delete_application("bank", False, "t", None)).detail
        self.assertIn("bound to orders", said)
        self.refused(VersionMismatch, lambda: self.registrar.delete_application("shop", True, "t", 7))
        self.refused(NotFound, lambda: self.registrar.delete_application("none", True, "t", None))

    def test_delete_forced(self) -> None:
        """Forced, its topics go with their data, all bindings on them, its groups and everybody's places; all is named. Others keep theirs."""
        for id in ("shop", "bank", "shop-2", "shop2"):
            self.application(id)
        self.topic("orders")
        self.topic("mail")
        self.topic("money", "bank")
        self.bind("shop", "orders", sub=True)
        self.bind("shop", "money", sub=True)
        self.bind("bank", "orders", sub=True)
        self.bind("bank", "money", sub=True, pub=True, max_attempts=3, dead_letter="mail")
        self.bind("shop-2", "money", sub=True)
        for group in ("shop.a", "shop.b"):
            self.named_group(group, "orders", "money")
        self.named_group("bank.x", "orders", "money")
        self.named_group("shop-2.a", "money")
        went = self.wait(self.registrar.delete_application("shop", True, "t", None))
        self.assertEqual(
            went,
            {
                "topics": ["mail", "orders"],
                "bindings": ["bank/orders", "shop/mail", "shop/money", "shop/orders"],
                "dead_letters": ["bank/money"],
                "groups": ["shop", "shop.a", "shop.b"],
            },
        )
        entries, topics, places = self.state()
        self.assertEqual(
            sorted(entries),
            [
                "/applications/bank",
                "/applications/shop-2",
                "/applications/shop2",
                "/bindings/bank",
                "/bindings/shop-2",
                "/groups/bank",
                "/groups/bank.x",
                "/groups/shop-2",
                "/groups/shop-2.a",
                "/topics/money",
            ],
        )
        self.assertEqual(set(topics), {"money"})
        left = {(group, place.topic) for group, kept in places.items() for place in kept}
        self.assertEqual(left, {("bank", "money"), ("bank.x", "money"), ("shop-2", "money"), ("shop-2.a", "money")})
        kept = self.entry("/bindings/bank", Bindings).items["money"]
        self.assertEqual((kept.dead_letter, kept.max_attempts, kept.version), (None, None, self.registry.snapshot().serial))
        self.assertEqual(set(self.entry("/groups/bank.x", Group).topics), {"money"})
        self.assertEqual(self.what()[-1], "application.deleted shop")

    def test_made_again(self) -> None:
        """An application made again under the id is another one: no binding, no group, no old key."""
        keys = self.application()
        self.topic()
        self.bind(sub=True)
        first = self.entry("/applications/shop", Application)
        grant = self.gate.publisher(Credentials("shop", keys["secret"]))
        self.wait(self.registrar.delete_application("shop", True, "t", None))
        self.application()
        self.assertNotEqual(self.entry("/applications/shop", Application).serial, first.serial)
        self.assertEqual(self.gate.grant_of("shop").bindings, {})
        self.assertEqual(list(self.registry.snapshot().children("/groups")), [])
        with self.assertRaises(BadCredentials):
            self.gate.may_publish(grant, "orders", 1, 1)

    def test_storage_away_at_a_forced_deletion(self) -> None:
        """A storage that is away refuses it before anything is changed; one that goes away in the middle is told, with what is left."""
        self.application()
        self.topic()
        self.storage.faults = {"describe": StorageUnavailable("away")}
        self.refused(StorageUnavailable, lambda: self.registrar.delete_application("shop", True, "t", None))
        self.storage.faults = {"delete_topic": StorageUnavailable("away"), "forget": StorageUnavailable("away")}
        with self.assertRaises(StorageUnavailable) as caught:
            self.wait(self.registrar.delete_application("shop", True, "t", None))
        self.assertEqual(caught.exception.members["topics"], ["orders"])
        self.assertIn("data=true", caught.exception.detail)
        self.assertEqual(self.state()[0], {})

    def test_registry_away(self) -> None:
        """A registry that cannot be written changes nothing anywhere."""
        self.application()
        self.topic()
        self.bind(sub=True)
        self.registry.refuse = RegistryUnavailable("full")
        for call in (
            lambda: self.registrar.create_application("new", "new", "t"),
            lambda: self.registrar.rotate("shop", "secret", 0, "t", None),
            lambda: self.registrar.delete_application("shop", True, "t", None),
            lambda: self.registrar.create_topic(TopicSpec("new"), "shop", None, False, "t"),
            lambda: self.registrar.alter_topic("orders", {"retention_ms": 5}, "t", None),
            lambda: self.registrar.delete_topic("orders", True, True, "t", None),
            lambda: self.registrar.put_binding(Binding("shop", "orders", 0, pub=True), "t", None),
            lambda: self.registrar.delete_binding("shop", "orders", "t", None),
            lambda: self.registrar.create_token("ci", "admin", "t"),
        ):
            self.refused(RegistryUnavailable, call)

    def test_cancelled(self) -> None:
        """Who gives up waiting gets nothing, and the registration is carried through all the same: nothing is left half done."""
        self.application()
        self.registry.held = True
        asked = self.registrar.create_topic(TopicSpec("orders"), "shop", None, False, "t")
        asked.cancel()
        self.failureResultOf(asked, CancelledError)
        self.registry.release()
        self.assertEqual(set(self.state()[1]), {"orders"})
        self.assertEqual(self.entry("/topics/orders", Topic).id, "orders")


class TokenTests(RegistrarCase):
    """Manager tokens."""

    def test_create(self) -> None:
        """A token is shown once, kept as its digest, and found by its text."""
        token, text = self.wait(self.registrar.create_token("ci", "viewer", "t"))
        self.assertTrue(re.fullmatch("pt_[A-Za-z0-9_-]{43}", text))
        self.assertEqual((token.name, token.role, token.digest, token.serial), ("ci", "viewer", digest(text), 1))
        self.assertEqual(self.registrar.token_of(text), token)
        for shown in ("", "ci", token.digest, text + " ", text[:-1], "\udcff"):
            self.assertIsNone(self.registrar.token_of(shown))
        self.assertEqual(self.what(), ["token.created ci"])

    def test_create_refused(self) -> None:
        """A name that is taken or none, a role that is none."""
        self.wait(self.registrar.create_token("ci", "admin", "t"))
        self.refused(Exists, lambda: self.registrar.create_token("ci", "viewer", "t"))
        for name in ("", ".", "..", "a/b", "a b", "x" * 201):
            self.refused(BadBody, lambda name=name: self.registrar.create_token(name, "viewer", "t"))
        self.assertIn("role", self.refused(BadBody, lambda: self.registrar.create_token("x", "root", "t")).detail)

    def test_delete(self) -> None:
        """An ended token opens nothing."""
        self.wait(self.registrar.create_token("boss", "admin", "t"))
        _, text = self.wait(self.registrar.create_token("ci", "admin", "t"))
        self.wait(self.registrar.delete_token("ci", "t"))
        self.assertIsNone(self.registrar.token_of(text))
        self.assertEqual(self.what()[-1], "token.deleted ci")
        self.refused(NotFound, lambda: self.registrar.delete_token("ci", "t"))

    def test_the_last_admin(self) -> None:
        """The last admin token stays, whatever others there are."""
        self.wait(self.registrar.create_token("boss", "admin", "t"))
        self.wait(self.registrar.create_token("view", "viewer", "t"))
        self.assertIn("last admin", self.refused(InUse, lambda: self.registrar.delete_token("boss", "t")).detail)
        self.wait(self.registrar.delete_token("view", "t"))
        self.wait(self.registrar.create_token("boss2", "admin", "t"))
        self.wait(self.registrar.delete_token("boss", "t"))
        self.refused(InUse, lambda: self.registrar.delete_token("boss2", "t"))

    def test_ensure_admin(self) -> None:
        """The given text becomes an admin token, once; another text gets a name of its own and ends nobody's."""
        text = "a-token-of-the-operator"
        token = self.wait(self.registrar.ensure_admin(text))
        self.assertEqual((token.name, token.role), ("admin", "admin"))
        self.assertEqual(self.registrar.token_of(text), token)
        serial = self.registry.snapshot().serial
        self.assertEqual(self.wait(self.registrar.ensure_admin(text)), token)
        self.assertEqual(self.registry.snapshot().serial, serial)
        other = self.wait(self.registrar.ensure_admin("another-nodes-token"))
        self.assertEqual(other.name, "admin-2")
        self.assertEqual(self.registrar.token_of(text), token)

    def test_ensure_admin_on_two_nodes_at_once(self) -> None:
        """The same text, registered by two nodes that saw nothing yet: it stands there once, and both are told the same."""
        beside = MemoryRegistry(self.clock, beside=self.registry)
        self.wait(beside.start())
        other = Registrar(beside, self.storage, self.clock, 1_048_576)
        self.registry.held = beside.held = True
        asked = [one.ensure_admin("a-token-of-the-operator") for one in (self.registrar, other)]
        self.registry.release()
        beside.release()
        first, second = map(self.wait, asked)
        self.assertEqual(first, second)
        self.assertEqual(list(self.registry.snapshot().children("/tokens")), ["admin"])

    def test_ensure_admin_under_another_name(self) -> None:
        """A text that is an admin token already, of any name, is left as it is."""
        _, text = self.wait(self.registrar.create_token("boss", "admin", "t"))
        self.assertEqual(self.wait(self.registrar.ensure_admin(text)).name, "boss")
        self.assertEqual(list(self.registry.snapshot().children("/tokens")), ["boss"])

    def test_ensure_admin_refused(self) -> None:
        """A text that can be guessed or cannot be sent is a mistake in the configuration, told without the text."""
        for text in ("", "short", "has a blank in it here", "x" * 201, "line\nfeed-in-the-token", "tok\u00e9n-that-is-long"):
            error = self.refused(ConfigError, lambda text=text: self.registrar.ensure_admin(text))
            self.assertIn("PSUBD_ADMIN_TOKEN", str(error))
            if text:
                self.assertNotIn(text, str(error))
