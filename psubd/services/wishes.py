"""What consumer instances read: topics by name, by pattern, or partitions by hand."""

from collections.abc import Iterable
from functools import lru_cache
from typing import Any, TypeVar

import re2

from psubd.errors import BadParameter, IllegalState
from psubd.model import Wish

Named = TypeVar("Named")

MOST_CHARACTERS = 256
"""Of a pattern (contract, section 4)."""

MOST_MEMORY = 1 << 20
"""Bytes that RE2 may take for one pattern."""

MOST_NAMED = 1_000
"""Topics or partitions that one instance may name: with names of 249 characters that is a third of what ZooKeeper takes in a node (1 MiB)."""

KEPT = 64
"""Patterns that are kept compiled: at most so much memory times `MOST_MEMORY`."""


@lru_cache(KEPT)
def compiled(pattern: str) -> Any:
    """:raises BadParameter:"""
    if len(pattern) > MOST_CHARACTERS:
        raise BadParameter(f"topic_pattern: {len(pattern)} characters; at most {MOST_CHARACTERS}")
    options = re2.Options()
    options.log_errors = False
    options.max_mem = MOST_MEMORY
    try:
        return re2.compile(pattern, options)
    except re2.error as wrong:
        said = wrong.args[0] if wrong.args else wrong
        why = said.decode("utf-8", "replace") if isinstance(said, bytes) else str(said)
        raise BadParameter(f"topic_pattern: not a regular expression of RE2: {why}") from None


def topics_of(wish: Wish, bound: Iterable[str]) -> tuple[str, ...]:
    """The topics that it is about: those that are named, or those of ``bound`` that the pattern matches whole."""
    if wish.topics is not None:
        return wish.topics
    if wish.partitions is not None:
        return tuple(sorted({at.topic for at in wish.partitions}))
    if wish.pattern is None:
        return ()
    pattern = compiled(wish.pattern)
    return tuple(sorted(topic for topic in bound if pattern.fullmatch(topic)))


def check_change(former: Wish, wish: Wish) -> None:
    """:raises IllegalState: subscribed and assigned by hand exclude each other. :raises BadParameter: a pattern that is none."""
    if wish.pattern is not None:
        compiled(wish.pattern)
    subscribed = former.topics is not None or former.pattern is not None
    if wish.partitions is not None and subscribed:
        raise IllegalState("the instance has a subscription; delete that before partitions are assigned to it by hand")
    if (wish.topics is not None or wish.pattern is not None) and former.partitions is not None:
        raise IllegalState("partitions are assigned to the instance by hand; assign none, or make another instance, before it subscribes")


def tidied(wish: Wish) -> Wish:
    """Each topic and partition once, in the order given; nothing at all where it names none.

    :raises BadParameter: several kinds at once, or more than `MOST_NAMED`.
    """
    if sum(part is not None for part in (wish.topics, wish.pattern, wish.partitions)) > 1:
        raise BadParameter("topics, topic_pattern and partitions exclude each other; name one of them")
    if wish.topics is not None:
        return Wish(topics=few("topics", tuple(dict.fromkeys(wish.topics)))) if wish.topics else Wish()
    if wish.partitions is not None:
        return Wish(partitions=few("partitions", tuple(dict.fromkeys(wish.partitions)))) if wish.partitions else Wish()
    return wish


def few(what: str, named: tuple[Named, ...]) -> tuple[Named, ...]:
    """What one instance may name. :raises BadParameter: it is more."""
    if len(named) > MOST_NAMED:
        raise BadParameter(f"{what}: {len(named)}; at most {MOST_NAMED:,} in one instance. Use a topic_pattern, or more instances")
    return named
