"""The HTTP contract on the embedded default."""

from psubd.testing.http_contract import HttpContract
from tests.integration.http.case import HttpCase


class SqliteHttpTests(HttpContract, HttpCase):
    """`sqlite:`"""

    @classmethod
    def storage(cls) -> str:
        return "sqlite:"
