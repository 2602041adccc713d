"""What clients of Confluent's REST proxy are promised (contract, section 4), held against a real daemon: one suite, whatever the storage is.

A test for every route of its versions 1 and 2, and for every error number that psubd can cause over HTTP; 50002 and 50003 need a storage that fails,
and are held by the tests of the endpoints. The host class mixes `ConfluentContract` into a test case as it does with `psubd.testing.http_contract`;
`RestartsContract` is for a storage that
outlives the process, `SettingsContract` for a daemon that is configured with `SETTINGS`.
"""

from psubd.testing.confluent_contract.committing import CommittingContract
from psubd.testing.confluent_contract.firsts import FirstsContract
from psubd.testing.confluent_contract.instances import InstancesContract
from psubd.testing.confluent_contract.producing import ProducingContract
from psubd.testing.confluent_contract.reading import ReadingContract
from psubd.testing.confluent_contract.refusing import RefusingContract
from psubd.testing.confluent_contract.restarts import RestartsContract
from psubd.testing.confluent_contract.settings import GUEST, SETTINGS, SettingsContract
from psubd.testing.confluent_contract.sharing import SharingContract
from psubd.testing.confluent_contract.topics import TopicsContract

__all__ = ["GUEST", "SETTINGS", "ConfluentContract", "RestartsContract", "SettingsContract"]


class ConfluentContract(
    TopicsContract,
    ProducingContract,
    InstancesContract,
    ReadingContract,
    CommittingContract,
    SharingContract,
    FirstsContract,
    RefusingContract,
):
    """All of them."""
