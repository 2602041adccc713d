"""Who of a group's consumer instances has which partition. Pure; what is to be done before one goes from hand to hand is the caller's."""

from collections.abc import Collection, Mapping

from psubd.model import TopicPartition


def share(wanted: Mapping[str, Collection[TopicPartition]], held: Mapping[TopicPartition, str]) -> dict[TopicPartition, str]:
    """Who is to have each of the partitions that somebody wants.

    Nobody has two more than another that wants what it has. As few as possible go from one to another, and the same input gives the same answer
    on every node.

    :param wanted: the partitions that each wants, by its id; of those that are equal otherwise, the one that stands earlier is preferred.
    :param held: who has one now; of those who are not in ``wanted`` nothing is kept.
    """
    own: dict[str, list[TopicPartition]] = {id: [] for id in wanted}
    wants = {id: frozenset(partitions) for id, partitions in wanted.items()}
    left: list[TopicPartition] = []
    for at in sorted(frozenset().union(*wants.values())):
        holder = held.get(at)
        if holder is not None and at in wants.get(holder, ()):
            own[holder].append(at)
        else:
            left.append(at)
    for at in left:
        least = min((id for id in wants if at in wants[id]), key=lambda id: len(own[id]))
        own[least].append(at)
    while level(own, wants):
        pass
    return {at: id for id, partitions in own.items() for at in partitions}


def level(own: dict[str, list[TopicPartition]], wants: Mapping[str, Collection[TopicPartition]]) -> bool:
    """Move one partition from somebody to another that has at least two fewer, and wants it. False: there is none to move."""
    poor = sorted(own, key=lambda id: len(own[id]))
    for rich in reversed(poor):
        for other in poor:
            if len(own[rich]) - len(own[other]) < 2:
                break
            at = next((at for at in reversed(own[rich]) if at in wants[other]), None)
            if at is not None:
                own[rich].remove(at)
                own[other].append(at)
                return True
    return False
