"""A daemon that ends and comes back on the same state: instances are there under the same ids."""

from collections.abc import Callable

from psubd.testing.confluent_contract.steps import ConfluentSteps, Instance
from psubd.testing.http_contract.steps import Stand


class RestartsContract(ConfluentSteps):
    """For storages that outlive the process. ``restart``: of the host; all connections are made anew after it."""

    restart: Callable[..., None]

    def read_some(self) -> tuple[Stand, Instance]:
        """Of six records, the first is read and committed, the second is read."""
        stand = self.stand()
        self.store(stand, *range(6))
        instance = self.reader(stand, "a")
        self.assertEqual(self.got(instance, "timeout=1000&max_bytes=1"), [0])
        self.assertEqual(instance.commit().status, 200)
        self.assertEqual(self.got(instance, "timeout=1000&max_bytes=1"), [1])
        return stand, instance

    def test_after_a_restart(self) -> None:
        """SIGTERM: it reads on where it was, and commits what it was given before."""
        stand, instance = self.read_some()
        self.restart()
        again = self.twin(self.standing(stand.tenant, stand.topic), instance)
        self.says(again.ask("GET", "/subscription"), {"topics": [stand.topic]})
        self.assertEqual(self.got(again, "timeout=1000&max_bytes=1"), [2])
        self.assertEqual(again.commit().status, 200)
        self.assertEqual(self.stands(again, stand.topic), 3)

    def test_a_commit_comes_first(self) -> None:
        """SIGTERM: also where the commit is the first that comes after it."""
        stand, instance = self.read_some()
        self.restart()
        again = self.twin(self.standing(stand.tenant, stand.topic), instance)
        self.assertEqual(again.commit().status, 200)
        self.assertEqual(self.stands(again, stand.topic), 2)

    def test_after_a_kill(self) -> None:
        """SIGKILL: it goes on from what was committed; nothing is lost."""
        stand, instance = self.read_some()
        self.restart(kill=True)
        again = self.twin(self.standing(stand.tenant, stand.topic), instance)
        self.assertEqual(self.got(again, "timeout=10000"), [1, 2, 3, 4, 5])
        self.assertEqual(again.commit().status, 200)
        self.assertEqual(self.stands(again, stand.topic), 6)
        self.told(self.caller(stand).ask("POST", "/consumers/g", {"name": "a"}), 409, 40902)
