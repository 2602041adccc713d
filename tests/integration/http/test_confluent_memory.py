"""Confluent's routes with the log in memory."""

from psubd.testing.confluent_contract import GUEST, SETTINGS, ConfluentContract, SettingsContract
from psubd.testing.daemon import register
from tests.integration.http.case import HttpCase


class MemoryConfluentTests(ConfluentContract, HttpCase):
    """`memory:`"""

    @classmethod
    def storage(cls) -> str:
        return "memory:"


class SettingsConfluentTests(SettingsContract, HttpCase):
    """A daemon that lets guests in."""

    settings = SETTINGS

    @classmethod
    def storage(cls) -> str:
        return "memory:"

    @classmethod
    def setUpClass(cls) -> None:
        super().setUpClass()
        register(cls.daemon.manager(), GUEST)
