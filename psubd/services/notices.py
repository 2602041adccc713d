"""What an operator should know of a group that nobody did to it."""

from collections.abc import Callable, Iterable

from twisted.logger import Logger

log = Logger()

SHOWN = 10
"""Spans of partitions that are named; a topic may have thousands."""


class Notices:
    """Passes lines on to who listens, and to the log, which outlives the process."""

    def __init__(self) -> None:
        self._ears: dict[object, Callable[[str], None]] = {}

    def listen(self, told: Callable[[str], None]) -> Callable[[], None]:
        """Call ``told`` with each line that comes. Returns what ends it."""
        key = object()
        self._ears[key] = told

        def end() -> None:
            self._ears.pop(key, None)

        return end

    def places_missing(self, group: str, topic: str, partitions: Iterable[int]) -> None:
        """No place of today's was kept for a known group: partitions that were added, or places that expired in the storage."""
        line = f"group.places_missing {group} {topic} partitions {spans(partitions)}: no place was kept, read from the first message"
        log.warn("{line}: repeated, never skipped", line=line)
        self._tell(line)

    def skipped(self, group: str, topic: str, partition: int, first: int, last: int) -> None:
        """Retention took messages that were not done, from offset ``first`` to ``last``; none where that is less."""
        if last < first:
            return
        line = f"group.skipped {group} {topic} partition {partition}: retention took offsets {first} to {last}, which were not done"
        log.warn("{line}: the group goes on behind them", line=line)
        self._tell(line)

    def recreated(self, group: str, topic: str) -> None:
        """The topic is another one than the group's places are of."""
        line = f"group.topic_recreated {group} {topic}: the topic was made again"
        log.warn("{line}: the group goes on at its first messages, leases of the former one are lost", line=line)
        self._tell(line)

    def truncated(self, group: str, topic: str, partition: int, stood: int, offset: int) -> None:
        """The log was cut below where the group stood."""
        line = f"group.log_truncated {group} {topic} partition {partition}: the log was cut below offset {stood}; goes on at {offset}"
        log.warn("{line}: leases of what was cut off are lost", line=line)
        self._tell(line)

    def letter_stuck(self, group: str, topic: str, partition: int, offset: int, why: str) -> None:
        """A message that is due for the dead-letter topic cannot be stored there: told once a message, tried on."""
        line = f"group.letter_stuck {group} {topic} partition {partition} offset {offset}: {why}"
        log.warn("{line}: it stays, and is tried again", line=line)
        self._tell(line)

    def contested(self, group: str, why: str) -> None:
        """Somebody else has a group that psubd serves."""
        line = f"group.contested {group} {why}"
        log.warn("{line}: not served until its places can be kept again", line=line)
        self._tell(line)

    def regained(self, group: str) -> None:
        """It is psubd's again."""
        line = f"group.regained {group}"
        log.info("{line}: its places are kept again", line=line)
        self._tell(line)

    def _tell(self, line: str) -> None:
        for told in list(self._ears.values()):
            told(line)


def spans(numbers: Iterable[int]) -> str:
    """Numbers as "0, 3-5", the first ten spans of them."""
    found: list[list[int]] = []
    for number in sorted(numbers):
        if found and number == found[-1][1] + 1:
            found[-1][1] = number
        else:
            found.append([number, number])
    shown = [str(first) if first == last else f"{first}-{last}" for first, last in found[:SHOWN]]
    return ", ".join(shown) + (" and more" if len(found) > SHOWN else "")
