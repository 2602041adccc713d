"""``[storage.sqlite]`` and the URL."""

import os
from collections.abc import Mapping
from typing import Any

import msgspec

from psubd.errors import ConfigError

FILE = "storage.sqlite"


class SqliteSettings(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """``[storage.sqlite]``.

    :ivar reader_threads: reads that go on at a time, each with a connection.
    :ivar retention_interval_ms: how often retention and compaction look at everything.
    :ivar busy_timeout_ms: how long to wait for another program that locks the file (a backup, the sqlite3 shell) before a batch is refused.
    :ivar max_bytes: the size that the file may grow to; 0: as the disk allows. Full, publishes are refused until retention made room.
    :ivar queue_bytes: payload that may wait for the writer before publishes are refused.
    :ivar tail_bytes: the newest messages that are kept in memory, so that reads near the end need no thread and no file.
    """

    reader_threads: int = 4
    retention_interval_ms: int = 30_000
    busy_timeout_ms: int = 5_000
    max_bytes: int = 0
    queue_bytes: int = 128 * 1024 * 1024
    tail_bytes: int = 16 * 1024 * 1024


RANGES = {
    "reader_threads": (1, 64),
    "retention_interval_ms": (1_000, 3_600_000),
    "busy_timeout_ms": (0, 60_000),
    "max_bytes": (0, 1 << 46),
    "queue_bytes": (1 << 20, 1 << 34),
    "tail_bytes": (0, 1 << 34),
}
"""Least and greatest; 0 of ``max_bytes`` apart, it is at least 1 MiB."""


def parse(settings: Mapping[str, Any]) -> SqliteSettings:
    """The settings. :raises ConfigError: with every mistake."""
    found = mistakes(settings)
    if found:
        raise ConfigError(found)
    return SqliteSettings(**settings)


def mistakes(settings: Mapping[str, Any]) -> list[str]:
    """Every mistake in the table, a line each."""
    return [mistake for name, value in settings.items() if (mistake := _mistake(name, value)) is not None]


def path_of(url: str, state: str) -> str:
    """The file of ``sqlite:`` (in the state folder) or ``sqlite:/abs/path``."""
    named = url.removeprefix("sqlite:")
    return named or os.path.join(state, FILE)


def url_mistakes(url: str) -> list[str]:
    """What is wrong with the URL."""
    named = url.removeprefix("sqlite:")
    if named and (not named.startswith("/") or named.endswith("/") or "\0" in named):
        return [f"storage: {url!r}; send sqlite: or sqlite:/absolute/path/of/the/file"]
    return []


def _mistake(name: str, value: object) -> str | None:
    if name not in RANGES:
        return f"storage.sqlite: {name}: there is no such setting; there are {', '.join(RANGES)}"
    low, high = RANGES[name]
    if type(value) is not int or not low <= value <= high or (name == "max_bytes" and 0 < value < 1 << 20):
        least = "0 or 1048576" if name == "max_bytes" else str(low)
        return f"storage.sqlite: {name}: {value!r}; send a number, {least} to {high}"
    return None
