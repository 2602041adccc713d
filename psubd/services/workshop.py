"""What all loaded groups of a node work with."""

from collections.abc import Callable, Iterator
from itertools import count
from typing import NamedTuple

from psubd.interfaces import IClock, INodes, IStorage
from psubd.services.alarms import Alarms
from psubd.services.burials import Burials
from psubd.services.carried import Carried
from psubd.services.notices import Notices
from psubd.services.rounds import Job
from psubd.services.tallies import Tallies
from psubd.services.tokens import Tokens
from psubd.services.windows import Windows

EPOCH_BITS = 40
"""A lease's serial is the node's epoch, then so many bits of counting: never used twice, by this process, an earlier or a later one."""

Mender = Callable[[str, str, int], Job[bool]]
"""Group, topic, partition -> `Resetter.mend`."""


class Workshop(NamedTuple):
    """:ivar serials: of leases. :ivar answers: numbers of answers: within one, a ledger tells by it what goes together. :ivar mend: moves a partition
    whose log was cut."""

    storage: IStorage
    clock: IClock
    windows: Windows
    alarms: Alarms
    burials: Burials
    tokens: Tokens
    carried: Carried
    serials: Iterator[int]
    answers: Iterator[int]
    tallies: Tallies
    notices: Notices
    mend: Mender


def serials_of(nodes: INodes) -> Iterator[int]:
    """The serials of leases that this node grants, once the registry has started."""
    yield from count((nodes.epoch << EPOCH_BITS) + 1)


def epoch_of(serial: int) -> int:
    """Of the node that granted the lease."""
    return serial >> EPOCH_BITS
