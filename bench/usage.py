"""What a process costs, from /proc."""

import os
import resource
from collections.abc import Iterable
from pathlib import Path
from typing import NamedTuple

TICK_US = 1_000_000 / os.sysconf("SC_CLK_TCK")
PAGE_KIB = resource.getpagesize() / 1024


class Usage(NamedTuple):
    """:ivar cpu_us: microseconds of processor time since it began, all threads. :ivar rss_kib: resident memory."""

    cpu_us: float
    rss_kib: float


def fields(pid: int) -> list[str]:
    """``/proc/<pid>/stat`` behind the name (proc(5)): [0] is the state, [1] the parent, [11] and [12] the time, [21] the pages."""
    return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()


def family(pid: int) -> list[int]:
    """The process and all that descend from it."""
    children: dict[int, list[int]] = {}
    for entry in Path("/proc").iterdir():
        if entry.name.isdigit():
            try:
                children.setdefault(int(fields(int(entry.name))[1]), []).append(int(entry.name))
            except OSError:  # it has ended meanwhile
                continue
    found = [pid]
    for member in found:
        found += children.get(member, [])
    return found


def usage(pids: Iterable[int]) -> Usage:
    """Of all of them together. :raises OSError: where one has ended."""
    cpu = rss = 0.0
    for pid in pids:
        told = fields(pid)
        cpu += (int(told[11]) + int(told[12])) * TICK_US
        rss += int(told[21]) * PAGE_KIB
    return Usage(cpu, rss)


def thread_times(pid: int) -> dict[int, float]:
    """Microseconds of processor time of each thread since it began, by its id in the kernel."""
    found = {}
    for task in Path(f"/proc/{pid}/task").iterdir():
        told = (task / "stat").read_text().rpartition(")")[2].split()
        found[int(task.name)] = (int(told[11]) + int(told[12])) * TICK_US
    return found


def connections_to(pids: Iterable[int], ports: Iterable[int]) -> int:
    """Established TCP connections from these processes to those ports."""
    wanted = {f"{port:04X}" for port in ports}
    inodes = set()
    for table in ("/proc/net/tcp", "/proc/net/tcp6"):
        for line in Path(table).read_text().splitlines()[1:]:
            parts = line.split()
            if parts[3] == "01" and parts[2].rpartition(":")[2] in wanted:
                inodes.add(parts[9])
    return sum(held(pid, inodes) for pid in pids)


def held(pid: int, inodes: set[str]) -> int:
    count = 0
    for entry in Path(f"/proc/{pid}/fd").iterdir():
        try:
            link = os.readlink(entry)
        except OSError:
            continue
        count += link.startswith("socket:[") and link[8:-1] in inodes
    return count
