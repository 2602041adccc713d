"""The HTTP contract on the embedded default."""

import os
import sys

from psubd.testing.http_contract import HttpContract, RestartsContract
from tests.integration.http.case import HttpCase


class SqliteHttpTests(HttpContract, HttpCase, RestartsContract):
    """`sqlite:`"""

    @classmethod
    def storage(cls) -> str:
        return "sqlite:"


class SqliteTreeHttpTests(SqliteHttpTests):
    """The same with no hot route: all goes by Klein's tree."""

    twistd = (sys.executable, os.path.join(os.path.dirname(__file__), "no_hot.py"))
