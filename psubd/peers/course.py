"""The course of one connection between two nodes, as a state machine (drawn in docs/peers.md).

What happens once in a connection's life is here; what happens per frame is a table in `psubd.peers.link`.
"""

from typing import Protocol

from automat import TypeMachineBuilder


class Course(Protocol):
    """What may befall a connection."""

    def proven(self, member: str) -> None:
        """The other end has proven which member it is."""

    def admitted(self) -> None:
        """This node's membership shows that member."""

    def finish(self, why: str) -> None:
        """This node stops: say what is left to say, then close."""

    def broke(self, why: str) -> None:
        """It is to end now, or has ended."""


class Effects:
    """What the machine has a connection do (`psubd.peers.connection.Connection`)."""

    def ask_admission(self, member: str) -> None:
        """See whether the membership shows the member; it may do so later."""
        raise NotImplementedError

    def open_link(self) -> None:
        """Frames are carried from now on."""
        raise NotImplementedError

    def close_link(self, why: str) -> None:
        """The link is lost: calls end, listeners are told."""
        raise NotImplementedError

    def flush(self) -> None:
        """Write what waits, then close."""
        raise NotImplementedError

    def cut(self, why: str) -> None:
        """Close at once."""
        raise NotImplementedError


machine = TypeMachineBuilder(Course, Effects)
proving = machine.state("proving")
waiting = machine.state("waiting")
linked = machine.state("linked")
finishing = machine.state("finishing")
ended = machine.state("ended")


@proving.upon(Course.proven).to(waiting)
def ask(course: Course, effects: Effects, member: str) -> None:
    """The dialler's answer comes at once, since it dials members only; a listener may hear of a new node later than that node of it."""
    effects.ask_admission(member)


@waiting.upon(Course.admitted).to(linked)
def link(course: Course, effects: Effects) -> None:
    """Both may speak."""
    effects.open_link()


@linked.upon(Course.finish).to(finishing)
def finish(course: Course, effects: Effects, why: str) -> None:
    """Nothing is taken in any more; answers that were given go out."""
    effects.close_link(why)
    effects.flush()


@linked.upon(Course.broke).to(ended)
def lose(course: Course, effects: Effects, why: str) -> None:
    """Cut first: what listeners do must find the line closed."""
    effects.cut(why)
    effects.close_link(why)


def cut(course: Course, effects: Effects, why: str) -> None:
    """Nobody was told of the link, or not any more."""
    effects.cut(why)


for unlinked in (proving, waiting):
    unlinked.upon(Course.finish).to(ended)(cut)
for unlinked in (proving, waiting, finishing):
    unlinked.upon(Course.broke).to(ended)(cut)
for over in (finishing, ended):
    over.upon(Course.finish).loop().returns(None)
proving.upon(Course.admitted).loop().returns(None)  # who it is comes first
ended.upon(Course.broke).loop().returns(None)
ended.upon(Course.proven).loop().returns(None)
ended.upon(Course.admitted).loop().returns(None)
linked.upon(Course.admitted).loop().returns(None)

begin_course = machine.build()
"""Takes a connection (`Effects`), gives its `Course`."""
