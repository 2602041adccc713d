"""`make bench`: every row beside its floor, as a table, and in build/bench as Markdown, JSON and a chart."""

import argparse
import shlex
import sys
import time
from collections.abc import Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any

from bench import needs, table
from bench.growth import growth_rows
from bench.house import House
from bench.proxies import DIALECTS, Peer, peer
from bench.rounds import Result, chosen, measure, now
from bench.rows import Row, storage_rows

STORAGES = ("sqlite", "memory", "kafka", "rdkafka")

OPEN_FILES = 30_000
"""Ten thousand connections at either end, and some."""


def options() -> argparse.ArgumentParser:
    found = argparse.ArgumentParser(prog="python -m bench", description=(__doc__ or "").strip())
    found.add_argument("--rounds", type=int, default=5, help="rounds a row; their medians count [5]")
    found.add_argument("--rows", default="", help="only rows whose names begin with one of these, between commas; NAME= is that one")
    found.add_argument("--seconds", type=float, default=1.0, help="how long each part of a row is measured in each round [1]")
    found.add_argument("--out", type=Path, default=table.BUILD, help="where the results go [build/bench]")
    found.add_argument("--kafka", metavar="HOST:PORT", help="a Kafka that is there, for a trial only: topics are made on it. Else one is started")
    kinds = ", ".join(DIALECTS)
    found.add_argument("--peer", metavar="KIND=URL", action="append", default=[], help=f"another proxy to put beside, on that Kafka: {kinds}")
    found.add_argument("--list", action="store_true", help="name the rows and end")
    return found


def main(arguments: Sequence[str] | None = None) -> int:
    args = options().parse_args(arguments)
    try:
        peers = [peer(text) for text in args.peer]
        if peers and not args.kafka:
            raise ValueError("--peer needs --kafka: both have to work on one Kafka")
        wanted = chosen(rows(peers), args.rows)
    except ValueError as wrong:
        print(wrong, file=sys.stderr)
        return 2
    if args.list:
        print("\n".join(f"{row.name:<28} {row.what}" for row in wanted))
        return 0
    missing = needs.provide()
    if missing:
        print(missing, file=sys.stderr)
        return 1
    needs.raise_open_files(OPEN_FILES)
    document = run(args, wanted)
    print("\n" + table.plain(document) + "\n\n" + table.summary(document))
    print("written: " + " ".join(str(path) for path in table.write(document, args.out)))
    return 0


def rows(peers: Sequence[Peer]) -> list[Row]:
    """All of them; those of one storage follow each other, so that its psubd starts once."""
    return [row for storage in STORAGES for row in [*storage_rows(storage, peers), *(growth_rows(storage) if storage != "memory" else ())]]


def run(args: argparse.Namespace, wanted: Sequence[Row]) -> dict[str, Any]:
    """The results, as they are written."""
    document = {
        "began": now(),
        "command": shlex.join(["python", "-m", "bench", *sys.argv[1:]]),
        "machine": needs.machine(),
        "versions": needs.versions(),
        "rounds": args.rounds,
        "seconds": args.seconds,
    }
    begun, results = time.monotonic(), []
    with House(args.out, args.kafka) as house, suppress(KeyboardInterrupt):  # what was measured until then is written
        for row in wanted:
            result = measure(row, house, args.rounds, args.seconds)
            results.append(result)
            print(progress(result), flush=True)
    document["took_s"] = round(time.monotonic() - begun)
    document["rows"] = [result.document() for result in results]
    return document


def progress(result: Result) -> str:
    """A line when a row is done."""
    shown = table.plain({"rows": [result.document()]}).splitlines()[1:]
    return "\n".join(" ".join(line.split()) for line in shown)


if __name__ == "__main__":
    sys.exit(main())
