"""Lease tokens: what a client shows to ack, nack or extend. Any node can read them; nobody else can make one.

A token is 60 bytes, as 80 characters of URL-safe base64 (no padding, no bits to spare: one text a token):

    bytes  2  format: ``L2``
           8  tag: which group stands on which topic, by which binding (`tag_of`)
           4  partition
           8  since: serial of the last reset, or cut of the log, that moved the partition
           8  offset
          14  serial of the lease: the claim's epoch (a ZooKeeper id, up to 63 bits) and 40 bits of counting
          16  MAC over all of these (`psubd.services.signet`)

All numbers are big-endian, and of fixed width: quicker than varints, and each has one form only.
"""

from base64 import urlsafe_b64decode, urlsafe_b64encode
from collections.abc import Callable
from hashlib import blake2b
from hmac import compare_digest
from struct import Struct
from typing import NamedTuple

from psubd.interfaces import Change, IRegistry
from psubd.model import Group, GroupTopic
from psubd.services.group_records import ROOT, application_of, group_of, names_of
from psubd.services.signet import Signet

FORMAT = b"L2"
PURPOSE = b"lease"
HEAD = Struct(">2s8sIQ")
OFFSET = Struct(">Q")
PLAIN = Struct(">2s8sIQQ14s")
SERIAL_BYTES = 14
TAG_BYTES = 8
CHARACTERS = 80


class Token(NamedTuple):
    """What a token says. ``serial`` is that of the lease, ``since`` that of the last reset that moved the partition."""

    tag: bytes
    partition: int
    offset: int
    since: int
    serial: int


def tag_of(group: Group, topic: str, record: GroupTopic) -> bytes:
    """Eight bytes that stand for the group on the topic. A group, topic or binding that is made again has another; a reset changes nothing."""
    parts = (group.name, str(group.serial), topic, record.uid, record.mark)
    # Each with its length: no two lists of parts make the same bytes.
    return blake2b(b"".join(b"%d:%s" % (len(part), part) for part in (text.encode() for text in parts)), digest_size=TAG_BYTES).digest()


class Tokens:
    """Writes and reads tokens, a few microseconds each: an answer may have 10,000."""

    def __init__(self, signet: Signet) -> None:
        self._mac = signet.mac

    def prefix(self, tag: bytes, partition: int, since: int) -> bytes:
        """What all tokens of a partition begin with, for `write`."""
        return HEAD.pack(FORMAT, tag, partition, since)

    def write(self, prefix: bytes, offset: int, serial: int) -> str:
        """The token of a lease. :raises RegistryUnavailable: where the signet is not to be had."""
        plain = prefix + OFFSET.pack(offset) + serial.to_bytes(SERIAL_BYTES)
        return urlsafe_b64encode(plain + self._mac(PURPOSE, plain)).decode()

    def read(self, text: str) -> Token | None:
        """What the token says. None: forged or malformed. :raises RegistryUnavailable: where the signet is not to be had."""
        if len(text) != CHARACTERS or not text.isascii():
            return None
        try:
            data = urlsafe_b64decode(text)
        except ValueError:
            return None
        plain = data[: PLAIN.size]
        # Python's decoder passes over what it does not know, and takes "+" and "/" too: only its own text of the bytes counts.
        if not compare_digest(self._mac(PURPOSE, plain), data[PLAIN.size :]) or urlsafe_b64encode(data).decode() != text:
            return None
        kind, tag, partition, since, offset, serial = PLAIN.unpack(plain)
        return Token(tag, partition, offset, since, int.from_bytes(serial)) if kind == FORMAT else None


class Whereabouts:
    """Which group and topic a tag stands for, among the groups of one application, so that no token of another's is ever found.

    An application is indexed when it is asked for first, and followed from then on. To be stopped when it is not needed any more.
    """

    def __init__(self, registry: IRegistry) -> None:
        self._registry = registry
        self._found: dict[str, dict[bytes, tuple[str, str]]] = {}
        self._tags: dict[str, tuple[bytes, ...]] = {}
        """Of the groups that are indexed, by full name."""
        self._end_listening: Callable[[], None] = registry.listen(self._changed)

    def stop(self) -> None:
        self._end_listening()

    def find(self, application: str, tag: bytes) -> tuple[str, str] | None:
        """The group's full name and the topic. None: no group of the application stands so today."""
        found = self._found.get(application)
        if found is None:
            names = names_of(self._registry.snapshot(), application)
            if not names:
                return None  # nothing is kept of whoever has no group
            found = self._found[application] = {}
            for name in names:
                self._take_in(name, found)
        return found.get(tag)

    def _changed(self, change: Change) -> None:
        for path in change.paths:
            if path.startswith(ROOT + "/"):
                self._update(path[len(ROOT) + 1 :])

    def _update(self, name: str) -> None:
        application = application_of(name)
        found = self._found.get(application)
        if found is None:
            return
        for tag in self._tags.pop(name, ()):
            found.pop(tag, None)
        self._take_in(name, found)
        if not found:
            del self._found[application]

    def _take_in(self, name: str, found: dict[bytes, tuple[str, str]]) -> None:
        group = group_of(self._registry.snapshot(), name)
        if group is not None and group.topics:
            tags = {tag_of(group, topic, record): (name, topic) for topic, record in group.topics.items()}
            found.update(tags)
            self._tags[name] = tuple(tags)
