"""What all loaded groups of a slot work with."""

from collections.abc import Callable, Iterator, Mapping
from typing import NamedTuple

from psubd.interfaces import IClock, IStorage
from psubd.services.alarms import Alarms
from psubd.services.burials import Burials
from psubd.services.carried import Carried
from psubd.services.notices import Notices
from psubd.services.patience import Patience
from psubd.services.rounds import Job
from psubd.services.tallies import Tallies
from psubd.services.tenures import Tenure
from psubd.services.tokens import Tokens
from psubd.services.windows import Windows

EPOCH_BITS = 40
"""A lease's serial is the epoch of the claim under which it was granted, then so many bits of counting through the process: never used twice, by
any node. Alone, the epoch is that of the node's start."""

Mender = Callable[[str, str, int], Job[bool]]
"""Group, topic, partition -> `Resetter.mend`."""

Rewinder = Callable[[str, str, Mapping[int, int]], Job[None]]
"""Group, topic, offsets by partition -> `Resetter.rewind`."""


class Workshop(NamedTuple):
    """:ivar tenure: of the slot. :ivar carried: what another node, or a former start of this one, left of its groups. :ivar serials: of leases.
    :ivar answers: numbers of answers: within one, a ledger tells by it what goes together. :ivar mend: moves a partition whose log was cut.
    :ivar rewind: moves partitions whose place a consumer instance puts back.
    """

    storage: IStorage
    clock: IClock
    windows: Windows
    alarms: Alarms
    patience: Patience
    burials: Burials
    tokens: Tokens
    tenure: Tenure
    carried: Carried
    serials: Iterator[int]
    answers: Iterator[int]
    tallies: Tallies
    notices: Notices
    mend: Mender
    rewind: Rewinder


def serials_of(epoch: int, numbers: Iterator[int]) -> Iterator[int]:
    """The serials of leases that are granted under a claim with that epoch."""
    return map((epoch << EPOCH_BITS).__add__, numbers)


def epoch_of(serial: int) -> int:
    """Of the claim under which the lease was granted."""
    return serial >> EPOCH_BITS
