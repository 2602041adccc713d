"""Rows and documents that tests make up."""

from typing import Any

from bench.rounds import Result
from bench.rows import Row, Target, at_least, tails
from bench.samples import Round, Sample

FAST = Sample(1000.0, 800.0, 2000.0, 36.0, 65536.0)
SLOW = Sample(500.0, 1600.0, 2500.0, 72.0, 131072.0)


def row(**changes: Any) -> Row:
    made = Row("publish-made-128", "publish, made", "the made floor", {"psubd": lambda house, seconds: SLOW, "floor": lambda house, seconds: FAST})
    return made._replace(**changes)


def result(*rounds: Round, targets: tuple[Target, ...] = (at_least(0.5),), missing: str = "", **changes: Any) -> Result:
    return Result(row(targets=targets, **changes), rounds, missing)


def document(*results: Result) -> dict[str, Any]:
    return {
        "began": "2026-01-01T00:00:00Z",
        "command": "make bench",
        "machine": {"cores": "2"},
        "versions": {"psubd": "1"},
        "rounds": 1,
        "seconds": 2.0,
        "rows": [one.document() for one in results],
    }


P99 = Target("p99, of the floor's", tails, 1.5, least=False)
