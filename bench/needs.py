"""What a run needs of the machine, and what it ran on."""

import os
import platform
import resource
import shutil
import sqlite3
import subprocess
from collections.abc import Sequence
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path

import psubd
from psubd.testing import kafka

ROOT = Path(__file__).resolve().parent.parent
PROGRAMS = {"wrk": "wrk"}
"""Program -> Debian package."""

PACKAGES = ("twisted", "httptools", "kafka-python", "confluent-kafka")


def provide() -> str:
    """Install what is missing, where this may: as root on a Debian-like machine. What is missing then, in words; empty: nothing."""
    missing = [package for program, package in PROGRAMS.items() if shutil.which(program) is None]
    if missing and os.geteuid() == 0 and shutil.which("apt-get"):
        install(missing)
        missing = [package for program, package in PROGRAMS.items() if shutil.which(program) is None]
    return f"these are needed and not installed: {' '.join(missing)} (Debian: apt-get install {' '.join(missing)})" if missing else ""


def install(packages: Sequence[str]) -> None:
    environment = {**os.environ, "DEBIAN_FRONTEND": "noninteractive"}
    for command in (["apt-get", "update", "-qq"], ["apt-get", "install", "-y", "-qq", "--no-install-recommends", *packages]):
        if subprocess.run(command, env=environment, stdout=subprocess.DEVNULL).returncode != 0:
            return


def raise_open_files(wanted: int) -> int:
    """Let this process and its children have so many open files, or as many as it may. What it got."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    if soft < wanted:
        try:
            resource.setrlimit(resource.RLIMIT_NOFILE, (wanted, max(hard, wanted)))
        except (ValueError, OSError):
            resource.setrlimit(resource.RLIMIT_NOFILE, (min(wanted, hard), hard))
    return resource.getrlimit(resource.RLIMIT_NOFILE)[0]


def machine() -> dict[str, str]:
    """What it ran on."""
    processors = [line.partition(":")[2].strip() for line in Path("/proc/cpuinfo").read_text().splitlines() if line.startswith("model name")]
    memory = int(Path("/proc/meminfo").read_text().split()[1]) / 1024**2
    return {
        "processor": processors[0] if processors else platform.machine(),
        "cores": str(os.cpu_count()),
        "memory": f"{memory:.0f} GiB",
        "kernel": platform.release(),
        "load before": f"{os.getloadavg()[0]:.2f}",
    }


def versions() -> dict[str, str]:
    """Of what took part."""
    found = {"psubd": psubd.__version__, "Python": platform.python_version()}
    commit = first_line(["git", "-C", str(ROOT), "rev-parse", "--short", "HEAD"])
    if commit:
        changed = first_line(["git", "-C", str(ROOT), "status", "--porcelain", "--untracked-files=no"])
        found["commit"] = commit + (" with changes" if changed else "")
    for package in PACKAGES:
        try:
            found[package] = version(package)
        except PackageNotFoundError:
            continue
    found["SQLite"] = sqlite3.sqlite_version
    found["Kafka"] = kafka.VERSION
    found["wrk"] = first_line(["wrk", "-v"]).removeprefix("wrk ").split(" [")[0]
    return found


def first_line(command: Sequence[str]) -> str:
    """Of what a command prints; empty where it is not there."""
    try:
        ended = subprocess.run(command, capture_output=True, text=True, timeout=30)
    except OSError:
        return ""
    return next(iter((ended.stdout or ended.stderr).splitlines()), "")
