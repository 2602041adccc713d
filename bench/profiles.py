"""`make bench-profile`: where the time of a publish and of a subscribe goes, by room and by function, from py-spy's samples of psubd under load.

A sample counts for the function that it was taken in, and for the room of psubd that called it last: what Twisted, msgspec or SQLite do for a room
is that room's. A thread's samples weigh what the thread took of the processor (/proc) while they were taken, so that one that waits for the disk
counts for its work only; microseconds are the process's CPU time a message, split by that.
"""

import argparse
import json
import re
import subprocess
import sys
import tempfile
from collections import Counter, defaultdict
from collections.abc import Callable, Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

from bench import load, needs, table
from bench.house import House, NotHere, Served
from bench.load import LoadFailed, Request
from bench.rounds import now
from bench.rows import backlog, differing, fixed
from bench.usage import thread_times

RATE = 500
"""Samples a second."""

ROOMS = ("wire", "endpoints", "access", "services", "delivery", "storage/sqlite", "storage/kafka", "storage/rdkafka", "storage")
OUTSIDE = "reactor and the rest"
MOST_FUNCTIONS = 20
SECONDS = 5.0


class Way(NamedTuple):
    """A hot path: its name, the storage, what to send and over how many connections."""

    name: str
    storage: str
    script: Callable[[Served], str]
    connections: int


def one_message(served: Served) -> str:
    topic = backlog(served)
    served.rewind(topic)
    read = Request("GET", f"/v1/sub?topic={topic}&ack=auto&timeout=5000", served.tenant.subscribe)
    served.ask(read)
    return load.same(read)


WAYS = [
    *(Way(f"publish-{storage}", storage, fixed, 128) for storage in ("sqlite", "kafka", "rdkafka")),
    Way("publish-sqlite-differing", "sqlite", differing, 128),
    *(Way(f"subscribe-{storage}", storage, one_message, 64) for storage in ("sqlite", "kafka", "rdkafka")),
]


class Stack(NamedTuple):
    """Samples of one stack: its thread's id in the kernel and its name, the frames from the outermost in, each ``function (file:line)``, and how much
    they weigh."""

    tid: int
    thread: str
    frames: Sequence[str]
    weight: float


THREAD = re.compile(r"thread \((\d+)\):? ?(.*)")


def stacks(raw: str) -> list[Stack]:
    """What ``py-spy record --format raw --threads`` wrote; a sample weighs 1."""
    found = []
    for line in raw.splitlines():
        text, _, times = line.rpartition(" ")
        named = THREAD.match(text.partition(";")[0])
        if named and times.isdigit():
            found.append(Stack(int(named[1]), named[2] or "main", text.split(";")[1:], int(times)))
    return found


def weighed(found: Sequence[Stack], cpu_us: Mapping[int, float]) -> list[Stack]:
    """The same, where each thread's samples weigh its processor time together."""
    counts: Counter[int] = Counter()
    for stack in found:
        counts[stack.tid] += int(stack.weight)
    return [stack._replace(weight=stack.weight * cpu_us.get(stack.tid, 0) / counts[stack.tid]) for stack in found]


def function(frame: str) -> str:
    """``take (psubd/wire/intake.py)``: without the line."""
    name, _, place = frame.rpartition(" (")
    return f"{name} ({place.rpartition(':')[0]})" if place else frame


def innermost(stack: Stack) -> str:
    return function(stack.frames[-1]) if stack.frames else OUTSIDE


def room(stack: Stack) -> str:
    """The room of the innermost frame that is psubd's."""
    for frame in reversed(stack.frames):
        _, found, path = frame.rpartition("psubd/")
        if found:
            return next((name for name in ROOMS if path.startswith(f"{name}/")), "psubd itself")
    return OUTSIDE


Shares = list[tuple[str, float]]
"""Of the whole, the largest first."""


def shares(found: Iterable[Stack], of: Callable[[Stack], Iterable[str]]) -> Shares:
    """``of``: what a stack counts for, each once."""
    weights: defaultdict[str, float] = defaultdict(float)
    total = 0.0
    for stack in found:
        total += stack.weight
        for name in of(stack):
            weights[name] += stack.weight
    return sorted(((name, weight / total) for name, weight in weights.items()), key=lambda one: -one[1]) if total else []


def ours(stack: Stack) -> set[str]:
    """psubd's functions anywhere on the stack."""
    return {function(frame) for frame in stack.frames if "psubd/" in frame}


def profile(way: Way, house: House, seconds: float) -> dict[str, Any]:
    """One path's profile. :raises NotHere: :raises LoadFailed: where it could not be loaded, or py-spy could not look."""
    served = house.psubd(way.storage)
    script = way.script(served)
    plain = served.load(script, way.connections, seconds)  # the figures, undisturbed
    script = way.script(served)
    found = recorded(served, script, way.connections, seconds)
    return {
        "name": way.name,
        "connections": way.connections,
        "rate": plain.rate,
        "cpu_us": plain.cpu_us,
        "threads": shares(found, lambda stack: [stack.thread]),
        "rooms": shares(found, lambda stack: [room(stack)]),
        "functions": shares(found, lambda stack: [innermost(stack)])[:MOST_FUNCTIONS],
        "within": shares(found, ours)[:MOST_FUNCTIONS],
    }


def recorded(served: Served, script: str, connections: int, seconds: float) -> list[Stack]:
    """Load it once more, and look."""
    with tempfile.TemporaryDirectory() as folder:
        before = thread_times(served.pid)
        spy = watch(served.pid, seconds, Path(folder) / "raw")
        served.load(script, connections, seconds + 1)
        said = spy.communicate(timeout=60)[1]
        if spy.returncode != 0:
            raise LoadFailed(f"py-spy: {said.decode().strip()[-300:]}")
        spent = {tid: us - before.get(tid, 0) for tid, us in thread_times(served.pid).items()}
        return weighed(stacks((Path(folder) / "raw").read_text()), spent)


def watch(pid: int, seconds: float, raw: Path) -> subprocess.Popen[bytes]:
    program = Path(sys.executable).with_name("py-spy")
    command = [str(program), "record", "--pid", str(pid), "--rate", str(RATE), "--duration", str(max(1, round(seconds))), "--format", "raw"]
    return subprocess.Popen([*command, "--threads", "--nonblocking", "--output", str(raw)], stdout=subprocess.DEVNULL, stderr=subprocess.PIPE)


def markdown(document: Mapping[str, Any]) -> str:
    """Two tables a path."""
    text = [table.about(document), ""]
    for found in document["profiles"]:
        text += [f"#### {found['name']}", ""]
        if "missing" in found:
            text += [f"Not measured: {found['missing']}", ""]
            continue
        figures = f"{table.figure(found['rate'])} a second, {table.span(found['cpu_us'])} of CPU each"
        text += [f"{found['connections']} connections, {figures}. By thread: {listed(found['threads'])}.", ""]
        for title, name in (("room", "rooms"), ("function itself", "functions"), ("function with all that it calls", "within")):
            text += [f"| {title} | share | us |", "|---|---|---|"]
            text += [f"| `{what}` | {share:.1%} | {table.figure(share * found['cpu_us'])} |" for what, share in found[name] if share >= 0.005]
            text.append("")
    return "\n".join(text)


def listed(found: Shares) -> str:
    return ", ".join(f"{name} {share:.0%}" for name, share in found if share >= 0.01)


def main(arguments: Sequence[str] | None = None) -> int:
    options = argparse.ArgumentParser(prog="python -m bench.profiles", description=(__doc__ or "").splitlines()[0])
    options.add_argument("--rows", default="", help=f"only those whose names begin with one of these: {', '.join(way.name for way in WAYS)}")
    options.add_argument("--seconds", type=float, default=SECONDS)
    options.add_argument("--out", type=Path, default=table.BUILD)
    args = options.parse_args(arguments)
    missing = needs.provide()
    if missing:
        print(missing, file=sys.stderr)
        return 1
    document = {"began": now(), "command": "make bench-profile", "machine": needs.machine(), "versions": needs.versions(), "rounds": 1}
    found: list[dict[str, Any]] = []
    words = tuple(word for word in args.rows.split(",") if word)
    with House(args.out) as house:
        for way in WAYS:
            if not words or way.name.startswith(words):
                found.append(one(way, house, args.seconds))
                print(way.name, listed(found[-1].get("rooms", [])), found[-1].get("missing", ""), flush=True)
    whole = {**document, "seconds": args.seconds, "profiles": found}
    (args.out / "profile.json").write_text(json.dumps(whole, indent=1) + "\n")
    (args.out / "profile.md").write_text(markdown(whole))
    print(f"written: {args.out / 'profile.md'} {args.out / 'profile.json'}")
    return 0


def one(way: Way, house: House, seconds: float) -> dict[str, Any]:
    try:
        return profile(way, house, seconds)
    except (NotHere, LoadFailed) as reason:
        return {"name": way.name, "missing": str(reason)}


if __name__ == "__main__":
    sys.exit(main())
