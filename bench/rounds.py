"""Rounds of a row, and what they come to."""

import subprocess
import time
from collections.abc import Sequence
from http.client import HTTPException
from typing import Any, NamedTuple

from bench.house import House, NotHere
from bench.load import LoadFailed
from bench.rows import Row
from bench.samples import Round, Sample, medians, middle, spread
from psubd.testing import kafka

WARM_UP_S = 0.5

TOLD_ROUNDS = 3
"""The most rounds of a row without a target: it is told, not judged, and the whole should not take all day."""

FAILURES = (NotHere, LoadFailed, OSError, AssertionError, HTTPException, subprocess.SubprocessError, kafka.KafkaFailed)
"""What ends a row, and not the run. The rounds that were taken before count."""


class Outcome(NamedTuple):
    """:ivar value: the median of the rounds. :ivar apart: how far they lie apart, as a share of it. :ivar met: None where it was not measured."""

    what: str
    value: float | None
    apart: float
    bound: float | None
    least: bool
    met: bool | None


class Result(NamedTuple):
    """A row, measured. ``missing`` says why it was not."""

    row: Row
    rounds: Sequence[Round]
    missing: str = ""

    @property
    def parts(self) -> dict[str, Sample]:
        """Each part's medians."""
        return {name: medians([one[name] for one in self.rounds]) for name in self.row.parts} if self.rounds else {}

    @property
    def outcomes(self) -> list[Outcome]:
        found = []
        for target in self.row.targets:
            values = [value for one in self.rounds if (value := target.value(one)) is not None]
            value = middle(values)
            met = None if value is None else target.met(value)
            found.append(Outcome(target.what, value, spread(values), target.bound, target.least, met))
        return found

    def document(self) -> dict[str, Any]:
        """As it stands in the JSON file."""
        return {
            "name": self.row.name,
            "what": self.row.what,
            "floor": self.row.floor,
            "unit": self.row.unit,
            "note": self.row.note,
            "missing": self.missing,
            "parts": {name: sample._asdict() for name, sample in self.parts.items()},
            "targets": [outcome._asdict() for outcome in self.outcomes],
            "rounds": [{name: sample._asdict() for name, sample in one.items()} for one in self.rounds],
        }


def promised(row: Row) -> bool:
    """Whether the row has a target."""
    return any(target.bound is not None for target in row.targets)


def measure(row: Row, house: House, rounds: int, seconds: float) -> Result:
    """Measure a row so many times, its parts in turn, so that the machine's unrest hits all of them alike."""
    done: list[Round] = []
    try:
        for part in row.parts.values() if row.warm else ():
            part(house, min(seconds, WARM_UP_S))
        for number in range(rounds if promised(row) else min(rounds, TOLD_ROUNDS)):
            names = list(row.parts)[:: -1 if number % 2 else 1]
            taken = {name: row.parts[name](house, seconds) for name in names}
            done.append({name: taken[name] for name in row.parts})
    except FAILURES as reason:
        return Result(row, done, str(reason) if isinstance(reason, NotHere | LoadFailed) else f"{type(reason).__name__}: {reason}")
    finally:
        house.clear()
    return Result(row, done)


def chosen(rows: Sequence[Row], words: str) -> list[Row]:
    """The rows whose names begin with one of the words (between commas; with ``=`` behind it: that are called so); all, where there is none.

    :raises ValueError: for a word that fits none.
    """
    wanted = [word.strip() for word in words.split(",") if word.strip()]
    for word in wanted:
        if not any(fits(row.name, word) for row in rows):
            raise ValueError(f"no row begins with {word}; there are: {' '.join(row.name for row in rows)}")
    return [row for row in rows if not wanted or any(fits(row.name, word) for word in wanted)]


def fits(name: str, word: str) -> bool:
    return name == word[:-1] if word.endswith("=") else name.startswith(word)


def now() -> str:
    return time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime())
