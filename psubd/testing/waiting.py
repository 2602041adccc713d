"""Waiting for a Deferred in a test that needs a real reactor (threads, sockets)."""

from typing import TypeVar

import pytest_twisted
from twisted.internet.defer import Deferred
from twisted.trial.unittest import SkipTest

T = TypeVar("T")


def blockon(deferred: Deferred[T], timeout: float = 30) -> T:
    """The result of ``deferred``, or what it failed with; TimeoutError after ``timeout`` seconds.

    Call it from a method of a trial test case that pytest runs: plain pytest functions run inside the reactor's greenlet, where nothing
    can block. Under plain trial there is no running reactor beside the test: the test is skipped.
    """
    if pytest_twisted._instances.gr_twisted is None:
        raise SkipTest("needs pytest-twisted: run it with pytest")
    from twisted.internet import reactor  # taken here, since importing it installs one

    deferred.addTimeout(timeout, reactor)
    return pytest_twisted.blockon(deferred)  # type: ignore[no-any-return]
