"""The registry contract on a real ZooKeeper."""

from psubd.interfaces import IRegistry
from psubd.registry.zookeeper.registry import ZooKeeperRegistry
from psubd.testing.registry_contract import SharedRegistryContract
from tests.integration.zookeeper.hosts import ZooKeeperCase


class OnOneServer(SharedRegistryContract, ZooKeeperCase):
    """`SharedRegistryContract` with one server."""

    registry: ZooKeeperRegistry
    wait = ZooKeeperCase.wait

    def setUp(self) -> None:
        super().setUp()
        self.state = self.mktemp()
        self.registry = self.node(self.state)

    def restart(self, crash: bool = False) -> ZooKeeperRegistry:
        if crash:
            self.crash(self.registry)
        else:
            self.wait(self.registry.stop())
        return self.node(self.state)

    def second(self) -> IRegistry:
        return self.node()


class OnThreeServers(OnOneServer):
    """The same with an ensemble of three of which one is killed while a node is connected; the addresses still name it."""

    servers = 3

    def setUp(self) -> None:
        super().setUp()
        if all(server.running for server in self.ensemble.servers.values()):
            self.ensemble.kill(self.ensemble.leader())
            self.until(lambda: self.registry.trouble() is None and any(map(self.leads, self.ensemble.ports)), "the next leader")
            self.wait(self.registry.sync())

    def leads(self, number: int) -> bool:
        return self.ensemble.role(number) == "leader"
