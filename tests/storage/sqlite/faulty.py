"""A connection that fails where a test says so, with SQLite's own codes: the faults of a disk that no test can order from a real one."""

import sqlite3
from typing import Any


def error(name: str) -> sqlite3.OperationalError:
    """As the sqlite3 module raises it."""
    raised = sqlite3.OperationalError(f"injected {name}")
    raised.sqlite_errorname = name
    raised.sqlite_errorcode = getattr(sqlite3, name)
    return raised


class Faults:
    """What is to fail: `connect` goes where `sqlite3.connect` does.

    ``before[word]`` / ``after[word]``: the next statements that begin with the word fail so, without being run or after they were.
    """

    def __init__(self) -> None:
        self.before: dict[str, list[str]] = {}
        self.after: dict[str, list[str]] = {}
        self.statements: list[str] = []

    def connect(self, path: str, **members: Any) -> sqlite3.Connection:
        faults = self

        class Connection(sqlite3.Connection):
            def execute(self, sql: str, *parameters: Any) -> sqlite3.Cursor:
                faults.statements.append(sql)
                faults.strike(faults.before, sql)
                cursor = super().execute(sql, *parameters)
                faults.strike(faults.after, sql)
                return cursor

        return sqlite3.connect(path, factory=Connection, **members)

    def strike(self, planned: dict[str, list[str]], sql: str) -> None:
        for word, names in planned.items():
            if names and sql.startswith(word):
                raise error(names.pop(0))
