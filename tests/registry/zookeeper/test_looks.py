"""What a node sees of the others where znodes move while it reads them."""

from collections.abc import Callable
from types import SimpleNamespace
from typing import Any

import msgspec
from kazoo.exceptions import NoNodeError
from twisted.internet.defer import Deferred, succeed
from twisted.trial.unittest import SynchronousTestCase

from psubd.registry.zookeeper.client import Children, Create, Get, Set
from psubd.registry.zookeeper.line import Lease
from psubd.registry.zookeeper.membership import Membership, key_of
from psubd.testing.clock import FakeClock

SESSION = 7
OTHER = key_of("b", 8)
OWN = key_of("a", SESSION)


class Tree:
    """ZooKeeper, as a session shows it: what is read is of the moment of the call; it arrives when the test says so."""

    def __init__(self) -> None:
        self.id, self.asked_ms = SESSION, 10_000
        self.lease: Lease | None = None
        self.nodes: dict[str, tuple[bytes, Any]] = {}
        self.zxid = 0
        self.watches: list[Callable[[str], None]] = []
        self.waiting: list[tuple[Deferred[Any], list[Any]]] = []
        self.held = False

    def follow(self, path: str, notice: Callable[[str], None]) -> None:
        self.watches.append(notice)

    def ask(self, operation: Any) -> Deferred[Any]:
        result = self._do(operation)
        return succeed(result)

    def batch(self, *operations: Any) -> Deferred[Any]:
        results = [self._do(operation) for operation in operations]
        if not self.held:
            return succeed(results)
        arrives: Deferred[Any] = Deferred()
        self.waiting.append((arrives, results))
        return arrives

    def arrive(self) -> None:
        """The oldest answer."""
        arrives, results = self.waiting.pop(0)
        arrives.callback(results)

    def put(self, path: str, data: bytes, owner: int) -> None:
        """Somebody writes; the watch fires."""
        self._write(path, data, owner)
        self.watches[0](path if path in self.nodes else path.rpartition("/")[0])

    def _write(self, path: str, data: bytes, owner: int) -> Any:
        self.zxid += 1
        made = self.nodes[path][1].czxid if path in self.nodes else self.zxid
        self.nodes[path] = (data, SimpleNamespace(czxid=made, ephemeralOwner=owner))
        return self.nodes[path][1]

    def _do(self, operation: Any) -> Any:
        if isinstance(operation, Children):
            names = [path.rpartition("/")[2] for path in self.nodes if path.rpartition("/")[0] == operation.path]
            return names, SimpleNamespace(pzxid=self.zxid)
        if isinstance(operation, Get):
            return self.nodes.get(operation.path) or NoNodeError()
        assert isinstance(operation, Create | Set)
        return self._write(operation.path, operation.data, SESSION)


class GrantedTests(SynchronousTestCase):
    def test_granted(self) -> None:
        """How long sessions last is what the server has granted, also once that one is over."""
        tree = Tree()
        members = Membership(tree, FakeClock(), "pubsub", 0)  # type: ignore[arg-type]
        self.assertEqual(members.session_ms(), 10_000)
        tree.lease = Lease(SESSION, 4_000, 0)
        self.assertEqual(members.session_ms(), 4_000)
        tree.lease = None
        self.assertEqual(members.session_ms(), 4_000)


class LooksTests(SynchronousTestCase):
    def setUp(self) -> None:
        self.tree = Tree()
        self.members = Membership(self.tree, FakeClock(), "pubsub", 0)  # type: ignore[arg-type]
        self.members.id = "a"
        self.tree.put(f"/nodes/{OTHER}", self.told("b", 0), 8)
        self.tree.put("/slots/3", OTHER.encode(), 8)
        self.successResultOf(Deferred.fromCoroutine(self.members.enter()))
        self.assertEqual(set(self.members.members()), {OWN, OTHER})
        self.tree.held = True

    def told(self, node: str, load: int) -> bytes:
        values = {"id": node, "address": None, "version": "1", "mode": "pubsub", "started_ms": 0, "eligible": True, "load": load}
        return msgspec.json.encode(values)

    def test_moved_while_another_is_read(self) -> None:
        """A znode that moves while others are read is there all the time: this node is not displaced, and no claim is taken for gone."""
        self.tree.put("/slots/4", OTHER.encode(), 8)
        self.tree.arrive()  # the lists; now it reads /slots/4
        self.tree.put(f"/nodes/{OWN}", self.told("a", 1), SESSION)
        self.tree.put("/slots/3", OTHER.encode(), 8)
        self.tree.arrive()
        self.assertFalse(self.members.displaced)
        self.assertEqual(set(self.members.members()), {OWN, OTHER})
        self.assertEqual(set(self.members.claims()), {3, 4})

    def test_moved_while_it_is_read(self) -> None:
        """What moves after it was read, and before that arrived, is read again."""
        self.tree.put(f"/nodes/{OTHER}", self.told("b", 1), 8)
        self.tree.arrive()
        self.tree.put(f"/nodes/{OTHER}", self.told("b", 2), 8)
        while self.tree.waiting:
            self.tree.arrive()
        self.assertEqual(self.members.members()[OTHER].load, 2)

    def test_gone_while_it_is_read(self) -> None:
        """One that the lists showed and that is gone when it is read is not there."""
        self.tree.put(f"/nodes/{OTHER}", self.told("b", 1), 8)
        del self.tree.nodes[f"/nodes/{OTHER}"]
        self.tree.arrive()
        self.tree.arrive()
        self.assertEqual(set(self.members.members()), {OWN})
