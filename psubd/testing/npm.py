"""Packages of the npm registry for tests, fetched once into ``~/.cache/psubd-tests/npm/`` (`psubd.testing.kafka.CACHE_VARIABLE`: another folder).

Needs Node.js with npm; where they are missing the tests that ask for a package are skipped with the reason, with ``CI=true`` that is an error.
"""

import fcntl
import os
import shutil
import subprocess
from pathlib import Path
from unittest import SkipTest

from psubd.testing.kafka import cache

FETCH_S = 300


def need() -> None:
    """Skip the test where there is no Node.js; with ``CI=true`` fail it."""
    absent = [program for program in ("node", "npm") if shutil.which(program) is None]
    if not absent:
        return
    reason = f"needs {' and '.join(absent)} on the PATH (Debian: apt-get install nodejs npm)"
    if os.environ.get("CI") == "true":
        raise AssertionError(f"{reason}; CI runs these tests")
    raise SkipTest(reason)


def package(name: str, version: str) -> Path:
    """The ``node_modules`` folder that has that very version, and what it depends on. Safe for processes that ask at the same time.

    :raises AssertionError: with what npm wrote, where it cannot be fetched.
    """
    root = cache().parent / "npm" / f"{name.replace('/', '-')}-{version}"
    root.mkdir(parents=True, exist_ok=True)
    with (root / "lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        if not (root / "node_modules" / name / "package.json").exists():
            fetch(root, f"{name}@{version}")
    return root / "node_modules"


def fetch(root: Path, wanted: str) -> None:
    """Install it there; no script of a package is run."""
    command = ["npm", "install", "--prefix", str(root), "--ignore-scripts", "--no-audit", "--no-fund", "--no-save", wanted]
    ended = subprocess.run(command, capture_output=True, text=True, timeout=FETCH_S, check=False)
    assert ended.returncode == 0, f"npm could not fetch {wanted}: {(ended.stdout + ended.stderr)[-2000:]}"
