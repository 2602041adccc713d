"""The HTTP contract on the embedded default."""

from psubd.testing.http_contract import HttpContract, RestartsContract
from tests.integration.http.case import HttpCase


class SqliteHttpTests(HttpContract, HttpCase, RestartsContract):
    """`sqlite:`"""

    @classmethod
    def storage(cls) -> str:
        return "sqlite:"
