"""Messages and slices for the tests of the ledger."""

from psubd.delivery.ledger import Ledger
from psubd.model import Message, Slice

MUCH = 10**9
"""Payload bytes that bound nothing."""


def message(offset, size=10, key=None):
    return Message(offset, 1000 + offset, key, b"v" * (size - len(key or b"")), ())


def portion(start, offsets, next_offset=None, first=0, end=None, keys=(None,), size=10):
    """The answer to a read at ``start`` that found ``offsets``, with the ``keys`` in turn."""
    offsets = list(offsets)
    after = next_offset if next_offset is not None else (offsets[-1] + 1 if offsets else start)
    found = tuple(message(offset, size, keys[index % len(keys)]) for index, offset in enumerate(offsets))
    return Slice(found, after, first, end if end is not None else after)


def fed(count=10, keys=(None,), **settings):
    """A ledger that has read so many messages."""
    ledger = Ledger(0, **settings)
    ledger.feed(0, portion(0, range(count), keys=keys))
    return ledger


def offsets_of(leases):
    return [message.offset for lease in leases for message in lease.messages]


def again(ledger, **named):
    """Read what is missing, as long as something is."""
    while (at := ledger.missing()) is not None:
        ledger.refill(at, portion(at, range(at, at + 100), **named))
