"""The reactor's turn without a log context: what it sees to, and which reactors it leaves alone."""

import errno
from types import SimpleNamespace
from typing import Any

import pytest
from twisted.internet.epollreactor import EPollReactor
from twisted.internet.task import Clock
from twisted.logger import LogLevel, globalLogPublisher

from psubd.polling import without_log_context


class Poller:
    """Gives out what it was told, once."""

    def __init__(self, *answers: Any) -> None:
        self.answers = list(answers)
        self.asked: list[tuple[float, int]] = []

    def poll(self, timeout: float, most: int) -> list[tuple[int, int]]:
        self.asked.append((timeout, most))
        answer = self.answers.pop(0)
        if isinstance(answer, BaseException):
            raise answer
        return answer  # type: ignore[no-any-return]


def reactor(poller: Poller, seen: Any, **selectables: Any) -> Any:
    made: Any = EPollReactor.__new__(EPollReactor)
    made._poller, made._doReadOrWrite = poller, seen
    made._selectables = {int(name[1:]): selectable for name, selectable in selectables.items()}
    without_log_context(made)
    return made


def test_each_event_goes_to_its_connection() -> None:
    seen: list[Any] = []
    poller = Poller([(3, 1), (9, 1), (4, 5)], [])
    made = reactor(poller, lambda *event: seen.append(event), _3="three", _4="four")
    made.doIteration(None)
    made.doIteration(0.5)
    assert seen == [("three", 3, 1), ("four", 4, 5)]
    assert poller.asked == [(-1, 2), (0.5, 2)]


def test_one_that_goes_meanwhile_is_passed_over() -> None:
    seen: list[Any] = []

    def see(selectable: Any, descriptor: int, event: int) -> None:
        seen.append(selectable)
        made._selectables.pop(4, None)

    made = reactor(Poller([(3, 1), (4, 1)]), see, _3="three", _4="four")
    made.doIteration(0)
    assert seen == ["three"]


def test_an_end_that_fails_is_logged_and_the_others_are_seen_to() -> None:
    seen: list[Any] = []
    events: list[Any] = []
    observer: Any = events.append

    def see(selectable: Any, descriptor: int, event: int) -> None:
        seen.append(selectable)
        if selectable == "three":
            raise RuntimeError("broken")

    made = reactor(Poller([(3, 1), (4, 1)]), see, _3="three", _4="four")
    globalLogPublisher.addObserver(observer)
    try:
        made.doIteration(0)
    finally:
        globalLogPublisher.removeObserver(observer)
    assert seen == ["three", "four"]
    assert [event["log_level"] for event in events] == [LogLevel.critical]


def test_a_signal_ends_the_turn() -> None:
    made = reactor(Poller(OSError(errno.EINTR, "interrupted"), OSError(errno.EBADF, "bad")), print)
    made.doIteration(1)
    with pytest.raises(OSError, match="bad"):
        made.doIteration(1)


def test_other_reactors_stay_as_they_are() -> None:
    for other in (Clock(), SimpleNamespace(_poller=1, _selectables={}, _doReadOrWrite=print)):
        without_log_context(other)
        assert not hasattr(other, "doIteration")
