"""Who of a group's consumer instances has which partition. Pure; what is to be done before one goes from hand to hand is the caller's."""

from collections.abc import Collection, Iterable, Iterator, Mapping
from heapq import heapify, heapreplace
from itertools import chain

from psubd.model import TopicPartition


def share(wanted: Mapping[str, Collection[TopicPartition]], held: Mapping[TopicPartition, str]) -> dict[TopicPartition, str]:
    """Who is to have each of the partitions that somebody wants.

    Nobody has two more than another that wants what it has. As few as possible go from one to another, and the same input gives the same answer
    on every node.

    :param wanted: the partitions that each wants, by its id; of those that are equal otherwise, the one that stands earlier is preferred.
    :param held: who has one now; of those who are not in ``wanted`` nothing is kept.
    """
    wants = {id: frozenset(partitions) for id, partitions in wanted.items()}
    own: dict[str, list[TopicPartition]] = {id: [] for id in wanted}
    left: list[TopicPartition] = []
    alike: dict[frozenset[TopicPartition], list[str]] = {}
    for id, partitions in wants.items():
        alike.setdefault(partitions, []).append(id)
    for at in sorted(frozenset().union(*alike)):
        holder = held.get(at)
        if holder is not None and at in wants.get(holder, ()):
            own[holder].append(at)
        else:
            left.append(at)
    deal(left, own, alike)
    for ids in alike.values():
        even(ids, own)
    while len(alike) > 1 and level(own, wants):
        pass
    return {at: id for id, partitions in own.items() for at in partitions}


def deal(left: Iterable[TopicPartition], own: Mapping[str, list[TopicPartition]], alike: Mapping[frozenset[TopicPartition], list[str]]) -> None:
    """Each of ``left`` to the one that has least of those that want it. ``alike``: who wants the same."""
    place = {id: number for number, id in enumerate(own)}
    heaps = [(partitions, [(len(own[id]), place[id], id) for id in ids]) for partitions, ids in alike.items()]
    for _, heap in heaps:
        heapify(heap)
    for at in left:
        heap = min((heap for partitions, heap in heaps if at in partitions), key=lambda heap: heap[0])
        load, number, id = heap[0]
        own[id].append(at)
        heapreplace(heap, (load + 1, number, id))


def even(ids: Iterable[str], own: Mapping[str, list[TopicPartition]]) -> None:
    """Of those that want the same, the ones that have too much give the last of it to those that have too little."""
    ranked = sorted(ids, key=lambda id: -len(own[id]))
    most, more = divmod(sum(len(own[id]) for id in ranked), len(ranked))
    due = {id: most + (number < more) for number, id in enumerate(ranked)}
    spare = chain.from_iterable(popped(own[id], len(own[id]) - due[id]) for id in ranked)
    for id in reversed(ranked):
        for _ in range(due[id] - len(own[id])):
            own[id].append(next(spare))


def popped(partitions: list[TopicPartition], count: int) -> Iterator[TopicPartition]:
    """The last ones, taken out."""
    for _ in range(count):
        yield partitions.pop()


def level(own: Mapping[str, list[TopicPartition]], wants: Mapping[str, Collection[TopicPartition]]) -> bool:
    """Move one partition from somebody to another that has at least two fewer, and wants it. False: there is none to move."""
    poor = sorted(own, key=lambda id: len(own[id]))
    for rich in reversed(poor):
        for other in poor:
            if len(own[rich]) - len(own[other]) < 2:
                break
            number = next((number for number in reversed(range(len(own[rich]))) if own[rich][number] in wants[other]), None)
            if number is not None:
                own[other].append(own[rich].pop(number))
                return True
    return False
