"""The suite of Confluent's routes as such."""

from collections import Counter

from twisted.trial.unittest import SynchronousTestCase

from psubd.testing.confluent_contract import ConfluentContract, RestartsContract, SettingsContract


class ConfluentSuiteTests(SynchronousTestCase):
    def test_no_case_hides_another(self) -> None:
        """Two of the mixed classes that name a case, or a step, alike would run one of them only."""
        parts = {part for suite in (ConfluentContract, RestartsContract, SettingsContract) for part in suite.__mro__} - {object}
        named = Counter(name for part in parts for name, member in vars(part).items() if callable(member) and not name.startswith("__"))
        self.assertGreater(sum(name.startswith("test_") for name in named), 70)
        self.assertEqual([name for name, count in named.items() if count > 1], [])
