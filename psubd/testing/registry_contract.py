"""What every `psubd.interfaces.IRegistry` holds to: one suite for all of them."""

from collections.abc import Callable
from typing import Any, TypeVar

from twisted.internet.defer import Deferred, gatherResults
from zope.interface.verify import verifyObject

from psubd.errors import Exists, PsubdError, RegistryUnavailable, TooLarge
from psubd.interfaces import Change, Delete, Entry, INodes, IRegistry, ISnapshot, Plan, Put
from psubd.registry.tree import DATA_LIMIT

T = TypeVar("T")


class RegistryContract:
    """A mixin for a `SynchronousTestCase`. Nothing here takes it that only this process writes; what two writers see of each other is in
    `SharedRegistryContract`.

    The host sets ``registry`` (started) in its ``setUp``, and provides `wait` and `restart`.
    """

    registry: IRegistry
    assertEqual: Callable[..., None]
    assertIs: Callable[..., None]
    assertTrue: Callable[..., None]
    assertIsNone: Callable[..., None]
    assertIn: Callable[..., None]
    assertGreater: Callable[..., None]
    assertRaises: Callable[..., Any]
    flushLoggedErrors: Callable[..., list[Any]]

    # --- the host's

    def wait(self, deferred: Deferred[T]) -> T:
        """The result, or what it failed with."""
        raise NotImplementedError

    def restart(self, crash: bool = False) -> IRegistry:
        """Another registry on what the present one has stored, started; ``crash``: as after a kill, without a stop."""
        raise NotImplementedError

    # --- words

    def make(self, *writes: Put | Delete, what: str = "thing.made x", registry: IRegistry | None = None) -> Change:
        """Make a change."""
        return self.wait(self.ask(*writes, what=what, registry=registry))

    def ask(self, *writes: Put | Delete, what: str = "thing.made x", registry: IRegistry | None = None) -> Deferred[Change]:
        """Begin a change."""

        def plan(snapshot: ISnapshot, serial: int) -> Plan:
            return Plan(what, writes)

        asked: Deferred[Change] = (registry or self.registry).change("tester", plan)
        return asked

    def entry(self, path: str, registry: IRegistry | None = None) -> Entry | None:
        found: Entry | None = (registry or self.registry).snapshot().get(path)
        return found

    def refused(self, error: type[Exception], deferred: Deferred[Any]) -> Any:
        """Wait for a failure, and see that nothing was changed by it."""
        before = self.registry.snapshot().serial
        with self.assertRaises(error) as caught:
            self.wait(deferred)
        self.assertEqual(self.registry.snapshot().serial, before)
        self.assertEqual(self.registry.history(before), [])
        return caught.exception

    # --- what stands

    def test_provides(self) -> None:
        """It provides what it says, with the names that the interface has."""
        self.assertTrue(verifyObject(IRegistry, self.registry))
        self.assertTrue(verifyObject(ISnapshot, self.registry.snapshot()))

    def test_empty(self) -> None:
        """A new registry holds nothing, and can be written."""
        snapshot = self.registry.snapshot()
        self.assertEqual(snapshot.serial, 0)
        self.assertIsNone(snapshot.get("/topics/t"))
        self.assertEqual(list(snapshot.children("/topics")), [])
        self.assertEqual(list(self.registry.history(0)), [])
        self.assertIsNone(self.registry.trouble())

    def test_change(self) -> None:
        """A change is there when it is answered; its serial is one more than the last one's."""
        first = self.make(Put("/topics/t", b"1"), what="topic.created t")
        second = self.make(Put("/topics/u", b"2"))
        self.assertEqual((first.serial, second.serial), (1, 2))
        self.assertEqual((first.actor, first.what, first.paths), ("tester", "topic.created t", ("/topics/t",)))
        self.assertEqual(self.registry.snapshot().serial, 2)
        self.assertEqual(self.entry("/topics/t"), Entry(b"1", 1, 1))

    def test_versions(self) -> None:
        """A path's version begins at 1, rises with each write of it, and begins again where the path is made again, with another serial."""
        for data in (b"a", b"b", b"c"):
            self.make(Put("/topics/t", data))
        self.make(Put("/topics/u", b"x"))
        self.assertEqual(self.entry("/topics/t"), Entry(b"c", 3, 3))
        self.make(Delete("/topics/t"))
        self.assertIsNone(self.entry("/topics/t"))
        self.make(Put("/topics/t", b"d"))
        self.assertEqual(self.entry("/topics/t"), Entry(b"d", 1, 6))

    def test_all_or_none(self) -> None:
        """A change of several paths is seen whole, in the order written."""
        self.make(Put("/topics/old", b"1"))
        made = self.make(Put("/topics/z", b"2"), Delete("/topics/old"), Put("/bindings/a", b"3"))
        self.assertEqual(made.paths, ("/topics/z", "/topics/old", "/bindings/a"))
        self.assertEqual(list(self.registry.snapshot().children("/topics")), ["z"])
        self.assertEqual(self.entry("/bindings/a"), Entry(b"3", 1, made.serial))

    def test_children_sorted(self) -> None:
        """Names come sorted, each once, below their own parent only; a list that was handed out does not move."""
        self.make(*(Put(f"/groups/{name}", b"") for name in ("b", "a.x", "a", "C", "a-b")))
        listed = self.registry.snapshot().children("/groups")
        self.assertEqual(list(listed), ["C", "a", "a-b", "a.x", "b"])
        self.make(Delete("/groups/a"), Put("/groups/aa", b""), Put("/groups/b", b"again"), Put("/topics/other", b""))
        self.assertEqual(list(listed), ["C", "a", "a-b", "a.x", "b"])
        self.assertEqual(list(self.registry.snapshot().children("/groups")), ["C", "a-b", "a.x", "aa", "b"])

    def test_any_bytes(self) -> None:
        """Data is bytes: none, NUL, not UTF-8."""
        for data in (b"", b"\x00", bytes(range(256))):
            self.make(Put("/secrets/s", data))
            self.assertEqual(self.entry("/secrets/s").data, data)  # type: ignore[union-attr]

    def test_data_limit(self) -> None:
        """A path takes 1 MiB and not a byte more; the refusal names the path, and the change's other writes are not made either."""
        self.make(Put("/bindings/a", bytes(DATA_LIMIT)))
        error = self.refused(TooLarge, self.ask(Put("/topics/t", b""), Put("/bindings/b", bytes(DATA_LIMIT + 1))))
        self.assertIn("/bindings/b", error.detail)
        self.assertIsNone(self.entry("/topics/t"))

    # --- plans

    def test_plan_is_given_the_coming_serial(self) -> None:
        """The plan sees the newest tree and the serial that its change will have."""
        seen = []

        def plan(snapshot: ISnapshot, serial: int) -> Plan:
            seen.append((snapshot.serial, snapshot.children("/topics"), serial))
            return Plan("x", (Put(f"/topics/t{serial}", b""),))

        for _ in range(2):
            self.wait(self.registry.change("a", plan))
        self.assertEqual(seen, [(0, (), 1), (1, ("t1",), 2)])

    def test_plan_raises(self) -> None:
        """What a plan raises fails the change as it is, writes nothing and tells nobody; the next change is made."""
        heard: list[Change] = []
        self.registry.listen(heard.append)

        def refuse(snapshot: ISnapshot, serial: int) -> Plan:
            raise Exists("there already")

        self.refused(Exists, self.registry.change("a", refuse))
        self.assertEqual(heard, [])
        self.assertEqual(self.make(Put("/topics/t", b"")).serial, 1)

    def test_plans_that_cannot_be_meant(self) -> None:
        """A plan without a write, with a path twice, with a delete of what is not there, or with a path that cannot be, is a bug of ours:
        not a refusal that a client is told."""
        self.make(Put("/topics/t", b""))
        for writes in (
            (),
            (Put("/topics/a", b""), Put("/topics/a", b"")),
            (Put("/topics/a", b""), Delete("/topics/a")),
            (Delete("/topics/absent"),),
            (Put("/topics/a/b", b""),),
            (Put("/nowhere/a", b""),),
            (Put("topics/a", b""),),
            (Put("/topics/", b""),),
            (Put("/topics/..", b""),),
            (Put("/topics/\u00e9", b""),),
            (Put("/topics/a\n", b""),),
        ):
            error = self.refused(ValueError, self.ask(*writes))
            self.assertTrue(not isinstance(error, PsubdError))

    def test_many_at_once(self) -> None:
        """Changes that are begun together are made one after another; each plan sees what the ones before it left."""

        def plan(snapshot: ISnapshot, serial: int) -> Plan:
            present = snapshot.get("/topics/count")
            return Plan("x", (Put("/topics/count", b"%d" % (0 if present is None else int(present.data) + 1)),))

        changes = self.wait(gatherResults([self.registry.change("a", plan) for _ in range(50)]))
        self.assertEqual([change.serial for change in changes], list(range(1, 51)))
        self.assertEqual(self.entry("/topics/count"), Entry(b"49", 50, 50))

    def test_a_change_that_was_given_up(self) -> None:
        """Who waits may cancel: the registry goes on, and what was begun behind it is made."""
        asked = self.ask(Put("/topics/a", b""))
        behind = self.ask(Put("/topics/b", b""))
        asked.addErrback(lambda _: None)
        asked.cancel()
        self.wait(behind)
        self.assertEqual(self.entry("/topics/b").version, 1)  # type: ignore[union-attr]

    # --- listeners and history

    def test_listeners(self) -> None:
        """A listener hears of every change in order, after the snapshot shows it and before the change is answered."""
        heard = []
        self.registry.listen(lambda change: heard.append((change, self.registry.snapshot().serial)))
        first = self.make(Put("/topics/a", b""))
        self.assertEqual(heard, [(first, 1)])
        made = self.wait(gatherResults([self.ask(Put(f"/topics/{n}", b"")) for n in range(5)]))
        self.assertEqual([change for change, _ in heard[1:]], made)
        for change, serial in heard:
            self.assertTrue(serial >= change.serial)

    def test_listener_ended(self) -> None:
        """An ended listener hears nothing more, also one that another one ends; ending it again does nothing."""
        heard: list[str] = []
        ends: list[Callable[[], None]] = []

        def once(change: Change) -> None:
            heard.append("first")
            for end in ends:
                end()

        ends.append(self.registry.listen(once))
        ends.append(self.registry.listen(lambda _: heard.append("second")))
        self.make(Put("/topics/a", b""))
        self.make(Put("/topics/b", b""))
        self.assertEqual(heard, ["first"])

    def test_listener_raises(self) -> None:
        """A listener that raises harms neither the change nor the other listeners; it is logged."""
        heard: list[Change] = []

        def broken(change: Change) -> None:
            raise ZeroDivisionError

        self.registry.listen(broken)
        self.registry.listen(heard.append)
        made = self.make(Put("/topics/a", b""))
        self.assertEqual(heard, [made])
        self.assertEqual(len(self.flushLoggedErrors(ZeroDivisionError)), 1)

    def test_listener_changes(self) -> None:
        """A listener may ask for a change; it is made after the present one, and heard by all in order."""
        heard: list[tuple[str, int]] = []
        asked: list[Deferred[Change]] = []

        def chain(change: Change) -> None:
            heard.append(("chain", change.serial))
            if change.serial == 1:
                asked.append(self.ask(Put("/topics/b", b"")))

        self.registry.listen(chain)
        self.registry.listen(lambda change: heard.append(("other", change.serial)))
        self.make(Put("/topics/a", b""))
        self.wait(asked[0])
        self.assertEqual(heard, [("chain", 1), ("other", 1), ("chain", 2), ("other", 2)])

    def test_history(self) -> None:
        """The changes after a serial, in order."""
        made = [self.make(Put("/topics/t", b"%d" % n), what=f"topic.altered {n}") for n in range(5)]
        self.assertEqual(list(self.registry.history(0)), made)
        self.assertEqual(list(self.registry.history(3)), made[3:])
        self.assertEqual(list(self.registry.history(5)), [])
        self.assertEqual(list(self.registry.history(99)), [])

    def test_history_is_kept_so_long(self) -> None:
        """The last 1,000 changes are kept, here and over a restart."""
        self.wait(gatherResults([self.ask(Put("/topics/t", b"%d" % n)) for n in range(1010)]))
        for registry in (self.registry, self.restart()):
            self.assertEqual([change.serial for change in registry.history(0)], list(range(11, 1011)))
            self.assertEqual([change.serial for change in registry.history(1008)], [1009, 1010])

    def test_sync(self) -> None:
        """After a sync the snapshot shows every change that was answered before."""
        made = self.make(Put("/topics/t", b""))
        self.wait(self.registry.sync())
        self.assertTrue(self.registry.snapshot().serial >= made.serial)

    # --- restarts

    def test_restart(self) -> None:
        """All is there after a restart: data, versions, serials, history; and it goes on from there."""
        self.make(Put("/topics/t", b"\x00\xff"), what="topic.created t")
        self.make(Put("/topics/t", b"2"), Put("/bindings/a", b"3"))
        self.make(Delete("/bindings/a"))
        history = list(self.registry.history(0))
        self.registry = self.restart()
        self.assertEqual(self.registry.snapshot().serial, 3)
        self.assertEqual(self.entry("/topics/t"), Entry(b"2", 2, 2))
        self.assertEqual(list(self.registry.snapshot().children("/bindings")), [])
        self.assertEqual(list(self.registry.history(0)), history)
        self.assertEqual(self.make(Put("/topics/t", b"3")).serial, 4)
        self.assertEqual(self.entry("/topics/t"), Entry(b"3", 3, 4))

    def test_crash(self) -> None:
        """What was answered is there after a kill."""
        made = [self.make(Put(f"/topics/{n}", b"x")) for n in range(20)]
        self.registry = self.restart(crash=True)
        self.assertEqual(list(self.registry.history(0)), made)
        self.assertEqual(len(self.registry.snapshot().children("/topics")), 20)

    def test_many_entries(self) -> None:
        """10,000 entries are there after a restart, and listing them copies nothing."""
        names = sorted(f"a{n}" for n in range(10_000))
        for start in range(0, 10_000, 1000):
            self.make(*(Put(f"/applications/{name}", b"{}" * 100) for name in names[start : start + 1000]))
        self.registry = self.restart()
        listed = self.registry.snapshot().children("/applications")
        self.assertEqual(list(listed), names)
        self.assertIs(self.registry.snapshot().children("/applications"), listed)

    def test_epoch(self) -> None:
        """The epoch rises with each start, also after a crash; the node's id stays."""
        nodes = INodes(self.registry)
        seen = [nodes.epoch]
        for crash in (False, True, False):
            self.registry = self.restart(crash)
            again = INodes(self.registry)
            seen.append(again.epoch)
            self.assertEqual(again.node_id, nodes.node_id)
        self.assertEqual(sorted(set(seen)), seen)

    def test_nodes(self) -> None:
        """The node sees itself among the nodes."""
        nodes = INodes(self.registry)
        own = [node for node in nodes.nodes() if node["self"]]
        self.assertEqual([node["id"] for node in own], [nodes.node_id])
        self.assertEqual(set(own[0]), {"id", "version", "mode", "started_ms", "address", "eligible", "self"})

    def test_stopped(self) -> None:
        """A stop finishes what was begun; later changes are refused, and nothing is changed by them."""
        asked = [self.ask(Put(f"/topics/{n}", b"")) for n in range(5)]
        self.wait(self.registry.stop())
        self.assertEqual([self.wait(change).serial for change in asked], [1, 2, 3, 4, 5])
        self.refused(RegistryUnavailable, self.ask(Put("/topics/late", b"")))
        self.assertTrue(self.registry.trouble())
        self.registry = self.restart()
        self.assertEqual(len(self.registry.snapshot().children("/topics")), 5)


class SharedRegistryContract(RegistryContract):
    """For a registry that many nodes write. The host provides `second`, too."""

    def second(self) -> IRegistry:
        """Another registry on the same store at the same time, started."""
        raise NotImplementedError

    def test_two_writers(self) -> None:
        """Changes of two nodes have one numbering; each plan sees what the other node left, and both end with the same tree and history."""
        other = self.second()

        def plan(snapshot: ISnapshot, serial: int) -> Plan:
            present = snapshot.get("/topics/count")
            return Plan("x", (Put("/topics/count", b"%d" % (1 if present is None else int(present.data) + 1)),))

        made = self.wait(gatherResults([registry.change("a", plan) for _ in range(20) for registry in (self.registry, other)]))
        self.assertEqual(sorted(change.serial for change in made), list(range(1, 41)))
        for registry in (self.registry, other):
            self.wait(registry.sync())
            self.assertEqual(self.entry("/topics/count", registry), Entry(b"40", 40, 40))
            self.assertEqual([change.serial for change in registry.history(0)], list(range(1, 41)))

    def test_the_other_is_heard(self) -> None:
        """After a sync, what another node changed is in the snapshot, and the listeners were called for it in order."""
        other = self.second()
        heard: list[Change] = []
        self.registry.listen(heard.append)
        made = [self.make(Put("/topics/t", b"%d" % n), registry=other) for n in range(3)]
        self.wait(self.registry.sync())
        self.assertEqual(heard, made)
        self.assertEqual(self.entry("/topics/t"), Entry(b"2", 3, 3))
