"""The suite as such."""

from collections import Counter

from twisted.trial.unittest import SynchronousTestCase

from psubd.testing.http_contract import HttpContract, OutsideContract, RestartsContract


class SuiteTests(SynchronousTestCase):
    def test_no_case_hides_another(self) -> None:
        """Two of the mixed classes that name a case, or a step, alike would run one of them only."""
        parts = {part for suite in (HttpContract, OutsideContract, RestartsContract) for part in suite.__mro__} - {object}
        named = Counter(name for part in parts for name, member in vars(part).items() if callable(member) and not name.startswith("__"))
        self.assertGreater(sum(name.startswith("test_") for name in named), 120)
        self.assertEqual([name for name, count in named.items() if count > 1], [])
