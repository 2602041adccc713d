"""What a path is: its segments, and which template they match. Knows no connection."""

import re
from collections.abc import Mapping
from typing import Generic, NamedTuple, TypeVar
from urllib.parse import unquote_to_bytes

from psubd.errors import NoSuchRoute
from psubd.fields import decode_component

T = TypeVar("T")

PART = re.compile(r"\{([A-Za-z_][A-Za-z0-9_]*)\}")
ENCODED_BAD = re.compile(rb"%(?:2f|00)", re.IGNORECASE)
CONTROL = re.compile(r"[\x00-\x1f\x7f]")
BEGUN = re.compile(rb"[A-Z]+ (/[^ ?\r\n]*)")


def segments(path: bytes) -> tuple[list[str], bool]:
    """The path's segments, percent-decoded once, and whether it had a trailing slash, which was taken off.

    :raises NoSuchRoute: for a segment that no id can be."""
    slash = len(path) > 1 and path.endswith(b"/")
    if slash:
        path = path[:-1]
    try:
        decoded = [decode_component(part) for part in path[1:].split(b"/")]
    except UnicodeDecodeError:
        raise NoSuchRoute("no such route: the path is not UTF-8") from None
    empty = "" in decoded and path != b"/"
    if empty or ENCODED_BAD.search(path) or any(CONTROL.search(part) for part in decoded):
        raise NoSuchRoute("no such route: the path has an empty part, an encoded slash or a control character")
    return decoded, slash


def first_segment(path: bytes) -> bytes:
    """The path's first segment, percent-decoded once."""
    return unquote_to_bytes(path[1:].partition(b"/")[0])


def begun_segment(head: bytes) -> bytes | None:
    """The first segment of the path in a head that cannot be read as a whole, or is not there as a whole; None: not even that can be told."""
    found = BEGUN.match(head)
    return None if found is None else first_segment(found[1])


class Found(NamedTuple, Generic[T]):
    """What a path led to, and the path's parts by name."""

    value: T
    parts: dict[str, str]


class Step(Generic[T]):
    """A place in the tree of templates.

    :ivar fixed: what follows, by segment. :ivar part: what follows any segment, where a template has a part here. :ivar value: what templates
        that end here lead to, and the names of its parts.
    """

    def __init__(self) -> None:
        self.fixed: dict[str, Step[T]] = {}
        self.part: Step[T] | None = None
        self.value: tuple[T, tuple[str, ...]] | None = None


class Templates(Generic[T]):
    """Finds templates as werkzeug does: a fixed segment goes before a part, one segment after another, and who cannot go on goes back.

    :param templates: what each leads to. A segment is fixed, or one part as a whole.
    """

    def __init__(self, templates: Mapping[str, T]) -> None:
        self.root: Step[T] = Step()
        for template, value in templates.items():
            self.add(template, value)

    def add(self, template: str, value: T) -> None:
        """One more. :raises ValueError: for a segment that is a part and something beside it."""
        step, names = self.root, []
        for segment in template.strip("/").split("/"):
            found = PART.fullmatch(segment)
            if found is not None:
                names.append(found[1])
                step.part = step = step.part or Step()
            elif PART.search(segment):
                raise ValueError(f"{template}: a segment is fixed or one part")
            else:
                step = step.fixed.setdefault(segment, Step())
        step.value = value, tuple(names)

    def find(self, path: list[str]) -> Found[T] | None:
        """What the segments lead to; None: nothing."""
        taken: list[str] = []
        end = walk(self.root, path, 0, taken)
        if end is None or end.value is None:
            return None
        value, names = end.value
        return Found(value, dict(zip(names, taken, strict=True)))


def walk(step: Step[T], path: list[str], at: int, taken: list[str]) -> Step[T] | None:
    """The step at which the path ends. :param taken: the segments that were parts."""
    if at == len(path):
        return step if step.value is not None else None
    fixed = step.fixed.get(path[at])
    end = walk(fixed, path, at + 1, taken) if fixed is not None else None
    if end is None and step.part is not None and path[at]:
        taken.append(path[at])
        end = walk(step.part, path, at + 1, taken)
        if end is None:
            taken.pop()
    return end
