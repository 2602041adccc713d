"""The HTTP contract with the log in memory."""

from psubd.testing.http_contract import HttpContract
from tests.integration.http.case import HttpCase


class MemoryHttpTests(HttpContract, HttpCase):
    """`memory:`"""

    @classmethod
    def storage(cls) -> str:
        return "memory:"
