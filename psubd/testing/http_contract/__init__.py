"""What every psubd promises over HTTP (contract, sections 1, 2, 3 and 6), held against a real daemon: one suite, whatever the storage is, and
whatever serves the data port.

`HttpContract` asserts what holds on a real Kafka too. The host class mixes it into a test case, runs a daemon, and says how to reach it
(`steps.Host`). Applications and topics have names of their own in every test, so that one daemon and one broker serve them all. `OutsideContract`
is for a storage that others use too, `RestartsContract` for one that outlives the process.
"""

from psubd.testing.http_contract.answers import AnswersContract
from psubd.testing.http_contract.batches import BatchesContract
from psubd.testing.http_contract.bodies import BodiesContract
from psubd.testing.http_contract.callers import CallersContract
from psubd.testing.http_contract.changes import ChangesContract
from psubd.testing.http_contract.groups import GroupsContract
from psubd.testing.http_contract.handovers import HandoversContract
from psubd.testing.http_contract.leases import LeasesContract
from psubd.testing.http_contract.letters import LettersContract
from psubd.testing.http_contract.losses import LossesContract
from psubd.testing.http_contract.orders import OrdersContract
from psubd.testing.http_contract.outside import OutsideContract
from psubd.testing.http_contract.poisons import PoisonsContract
from psubd.testing.http_contract.polls import PollsContract
from psubd.testing.http_contract.publishing import PublishingContract
from psubd.testing.http_contract.replays import ReplaysContract
from psubd.testing.http_contract.requests import RequestsContract
from psubd.testing.http_contract.restarts import RestartsContract

__all__ = ["HttpContract", "OutsideContract", "RestartsContract"]


class HttpContract(
    PublishingContract,
    BodiesContract,
    BatchesContract,
    CallersContract,
    PollsContract,
    AnswersContract,
    GroupsContract,
    ReplaysContract,
    ChangesContract,
    PoisonsContract,
    RequestsContract,
    LeasesContract,
    LossesContract,
    HandoversContract,
    OrdersContract,
    LettersContract,
):
    """All of them."""
