"""Confluent's routes on the embedded default."""

from psubd.testing.confluent_contract import ConfluentContract, RestartsContract
from tests.integration.http.case import HttpCase


class SqliteConfluentTests(ConfluentContract, HttpCase, RestartsContract):
    """`sqlite:`"""

    @classmethod
    def storage(cls) -> str:
        return "sqlite:"
