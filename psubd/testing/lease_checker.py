"""Whether what clients saw of a group is what the contract promises (section 3, "What holds, always"). Pure: a log in, faults out.

A client knows less than the daemon: an answer's lease was granted between the moment the request was sent and the moment the answer was read. Each
rule therefore counts only what is certain, so that it never calls a right daemon wrong, and names the two things that contradict each other.

Rules, each with a log in ``tests/testing/test_lease_checker.py`` that breaks it:

1.  identity: a message is read at the place and with the key that its publish was answered or sent, and nobody reads what nobody published.
2.  end: every message whose publish was answered 200 has an ack that was answered 200, or lies in the dead-letter topic.
3.  done: a message delivered after such an ack follows a kill -9 at most ``commit_interval_ms`` (and the allowance) after that answer. The same holds
    after a nack with ``dead`` that took.
4.  overlap: no two leases of a message stand at once; none comes back before its delay or backoff. A kill ends the leases of its process; a
    stop on SIGTERM does not.
5.  words: a lease that stands takes an ack, a nack and an extend; one that lapsed or went with its process takes an ack as long as the message was
    not leased again, and nothing else; one whose message is leased again takes nothing.
6.  attempts: from 1 to ``max_attempts``; each lease of a message in one process's life has another number, the later the higher, and none is
    higher than the leases that may have been before.
7.  epochs: never fall, and rise with each process.
8.  order: without ``ordered``, messages of a partition are leased for the first time in offset order. With it, one message of a key is out at a time,
    none before all earlier ones of its key were done or dead, and what was passed does not come after it without a kill. Messages without a
    key are one key of their partition. In auto mode one answer may hold several, in order.
9.  letters: only of messages that were nacked dead, or leased ``max_attempts`` times; twice only after a kill.

With many nodes a kill is a change of the group's owner without a handover (`psubd.testing.claims` tells which those were); a handover is what a stop
is. Leases then belong to a life by the epoch that they show, and one rule more holds:

10. stale: no answer comes from a former owner once the next one's claim was seen, but for what was in the client's buffers (the allowance).
"""

from bisect import bisect_left
from collections import Counter, defaultdict
from collections.abc import Iterator
from itertools import combinations, groupby, pairwise

from psubd.testing.lease_log import GRAIN_MS, Lease, Log, Place, Promises, Story, done_times


def faults(log: Log, promises: Promises) -> list[str]:
    """What contradicts the promises, each in a line that begins with its rule; [] where nothing does."""
    story = Story(log, promises)
    rules = (identity, end, done, stale, overlap, words, attempts, epochs, keys if promises.ordered else first_times, letters)
    return [f"{rule.__name__}: {fault}" for rule in rules for fault in rule(story)]


# --- each message ---------------------------------------------------------------------------------------------------------------


def identity(story: Story) -> Iterator[str]:
    published = {made.id: made for made in story.log.published}
    if len(published) != len(story.log.published):
        yield "an id was published twice: the log says nothing"
    places: dict[str, Place] = {made.id: made.place for made in story.log.published if made.place is not None}
    for lease in story.leases:
        seen = lease.delivery
        if seen.id not in published:
            yield f"{seen.id} at {seen.place} was never published"
        elif places.setdefault(seen.id, seen.place) != seen.place:
            yield f"{seen.id} is at {places[seen.id]} and was read at {seen.place}"
        elif published[seen.id].key != seen.key:
            yield f"{seen.id} was published with key {published[seen.id].key} and read with {seen.key}"
    for place, ids in _by_place(places).items():
        if len(ids) > 1:
            yield f"{place} holds {sorted(ids)}"


def _by_place(places: dict[str, Place]) -> dict[Place, set[str]]:
    holds: dict[Place, set[str]] = defaultdict(set)
    for name, place in places.items():
        holds[place].add(name)
    return holds


def end(story: Story) -> Iterator[str]:
    for made in story.log.published:
        if made.place is not None and made.place not in story.lettered and not story.acked(made.place):
            yield f"{made.id} at {made.place} was never done: {_leases(story.messages.get(made.place, []))}"


def done(story: Story) -> Iterator[str]:
    for place, leases in story.messages.items():
        for lease in leases:
            for asked, at in done_times(lease, ("ack", "dead")):
                for later in leases:
                    if (
                        later.delivery.at > at
                        and later is not lease
                        and not lease.granted_after(later)
                        and not _forgotten(story, lease, asked, at, later)
                    ):
                        yield f"{place} was done at {at:.0f} by {lease} and came again: {later}"


def _forgotten(story: Story, lease: Lease, asked: float, at: float, later: Lease) -> bool:
    """Whether a kill came before the storage had to know of it; in auto mode, whether the node that answered may not have come to tell."""
    until = at + story.promises.commit_interval_ms + story.promises.allowance_ms
    if lease.delivery.token is None and any(begun <= until and asked <= ended for begun, ended in story.log.edges):
        return True
    return any(asked <= kill.last and kill.at <= until for kill in story.kills[: later.latest_life])


def stale(story: Story) -> Iterator[str]:
    """Of many nodes: one that has lost the group says nothing any more."""
    for lease in story.leases:
        epoch, read = lease.delivery.epoch, lease.delivery.at - story.promises.allowance_ms
        for kill in story.kills:
            if epoch is not None and kill.epoch is not None and kill.sure and epoch < kill.epoch and kill.up < read:
                yield f"{lease.delivery.place} came from {epoch}, which was over since {kill.epoch} stood at {kill.up:.0f}: {lease}"


# --- leases ---------------------------------------------------------------------------------------------------------------------


def overlap(story: Story) -> Iterator[str]:
    for place, leases in story.messages.items():
        for first, second in combinations(leases, 2):
            if _clash(first, second):
                yield f"{place} was out twice: {first} and {second}"


def _clash(first: Lease, second: Lease) -> bool:
    """Whether ``second``, read later, was granted while ``first`` stood or its message had to wait, or both stood at that moment."""
    read = second.delivery.at
    if read < first.end and second.end > read:
        return True
    return read < first.free and first.of_life_of(second) and second.granted_after(first)


def words(story: Story) -> Iterator[str]:
    for place, leases in story.messages.items():
        for lease in leases:
            for number, word in enumerate(lease.told):
                if word.outcome == "lost":
                    yield from (f"{place}: {word.verb} at {word.asked:.0f} {why}: {_leases(leases)}" for why in _wrongly_lost(story, lease, number))
                elif word.outcome == "took":
                    yield from (f"{place}: {word.verb} at {word.asked:.0f} {why}: {_leases(leases)}" for why in _wrongly_taken(story, lease, number))


def _wrongly_lost(story: Story, lease: Lease, number: int) -> Iterator[str]:
    word = lease.told[number]
    if lease.delivery.at <= word.asked and lease.stood(number) >= word.at:
        yield f"was answered 409 although {lease} stood"
    elif word.verb == "ack" and not _again(story, lease, max(lease.delivery.asked, lease.stood(number)), word.at):
        yield f"was answered 409 although nobody had {lease} after it"


def _again(story: Story, lease: Lease, since: float, until: float) -> bool:
    """Whether the message may have been leased again after ``lease``, which stood until ``since``."""
    others = [other.delivery for other in story.messages[lease.delivery.place] if other is not lease and not lease.granted_after(other)]
    spans = [(made.asked, made.at) for made in others] + [(made.asked, made.at) for made in story.log.broken]
    return any(asked <= until and at >= since for asked, at in spans)


def _wrongly_taken(story: Story, lease: Lease, number: int) -> Iterator[str]:
    word = lease.told[number]
    if word.verb != "ack" and word.asked >= lease.over(number) and not _repeated(lease, number):
        yield f"took although {lease} had ended by {lease.over(number):.0f}"
    for other in story.messages[lease.delivery.place]:
        if other is not lease and other.granted_after(lease) and other.delivery.at <= word.asked and other.end >= word.at:
            yield f"took although the message had been leased again: {other}"


def _repeated(lease: Lease, number: int) -> bool:
    """A nack may be said again as long as the message was not leased again."""
    return lease.told[number].verb == "nack" and any(word.verb == "nack" for word in lease.told[:number])


def attempts(story: Story) -> Iterator[str]:
    most = story.promises.max_attempts or float("inf")
    for place, leases in story.messages.items():
        for lease in leases:
            before = _possible_before(story, leases, lease)
            if not 1 <= lease.delivery.attempt <= min(most, before + 1):
                yield f"{place}: attempt {lease.delivery.attempt} of {most} after at most {before} others: {_leases(leases)}"
        for first, second in combinations(leases, 2):
            if first.of_life_of(second) and _attempts_fall(first, second):
                yield f"{place}: attempt {first.delivery.attempt}, then {second.delivery.attempt}: {first} and {second}"


def _possible_before(story: Story, leases: list[Lease], lease: Lease) -> int:
    read = lease.delivery.at
    others = sum(1 for other in leases if other is not lease and other.delivery.asked <= read)
    return others + sum(1 for broken in story.log.broken if broken.asked <= read)


def _attempts_fall(first: Lease, second: Lease) -> bool:
    if not (first.delivery.whole and second.delivery.whole) or first.delivery.token is None:
        return False
    if first.delivery.attempt == second.delivery.attempt:
        return True
    return first.delivery.attempt > second.delivery.attempt and second.delivery.asked >= first.delivery.at


def epochs(story: Story) -> Iterator[str]:
    earlier = -1
    for _, group in groupby(sorted(story.leases, key=lambda lease: lease.life), key=lambda lease: lease.life):
        told = [(lease.delivery.epoch, lease) for lease in group if lease.delivery.epoch is not None]
        yield from (f"{epoch} after {earlier}, of the process before: {lease}" for epoch, lease in told if epoch <= earlier)
        for (former, one), (epoch, other) in pairwise(told):
            if epoch < former and other.delivery.asked >= one.delivery.at:
                yield f"{epoch} after {former}: {other}"
        earlier = max([earlier, *(epoch for epoch, _ in told)])


# --- order ----------------------------------------------------------------------------------------------------------------------


def first_times(story: Story) -> Iterator[str]:
    """What may have been in an answer that broke, and be on its way back, is no first time. Where a group goes from node to node, answers that were
    not begun are taken back without a word."""
    firsts = {place: leases[0] for place, leases in story.messages.items()}
    earliest: dict[int, Lease] = {}
    for (partition, offset), lease in sorted(firsts.items(), reverse=True):
        later = earliest.get(partition)
        if later is not None and later.delivery.at < lease.delivery.asked and not _maybe_out(story, later, lease):
            yield f"{(partition, offset)} came for the first time after {later.delivery.place}: {lease} and {later}"
        if later is None or lease.delivery.at < later.delivery.at:
            earliest[partition] = lease


def _maybe_out(story: Story, later: Lease, lease: Lease) -> bool:
    rest = story.promises.backoff_max + GRAIN_MS
    moves = (down for down in story.log.downs if down.epoch is not None)
    if any(move.at <= lease.delivery.at and later.delivery.asked <= move.up + story.promises.allowance_ms for move in moves):
        return True
    return any(
        broken.asked <= min(later.delivery.at, lease.delivery.asked) and broken.at + broken.timeout + rest >= later.delivery.asked
        for broken in story.log.broken
    )


def keys(story: Story) -> Iterator[str]:
    lanes: dict[tuple[int, str | None], list[Lease]] = defaultdict(list)
    for lease in story.leases:
        lanes[lease.delivery.place[0], lease.delivery.key].append(lease)
    known: dict[tuple[int, str | None], list[Place]] = defaultdict(list)
    for place, key in sorted(story.keys.items()):
        known[place[0], key].append(place)
    for lane, leases in lanes.items():
        for fault in (*_one_at_a_time(leases), *_earlier_done(story, known[lane], leases), *_passed(leases)):
            yield f"{lane}: {fault}"


def _one_at_a_time(leases: list[Lease]) -> Iterator[str]:
    out: list[Lease] = []
    for lease in leases:
        read = lease.delivery.at
        out = [other for other in out if max(other.end, other.free) > read]
        for other in out:
            if other.delivery.place != lease.delivery.place and _clash(other, lease):
                yield f"two of a key were out, or one was to wait: {other.delivery.place} {other} and {lease.delivery.place} {lease}"
        out.append(lease)


def _earlier_done(story: Story, places: list[Place], leases: list[Lease]) -> Iterator[str]:
    """``places``: of the key, in order. Each was done, as far as it may have been, before a later one comes."""
    since, passed = [], float("-inf")
    for place in places:
        since.append(passed)
        passed = max(passed, _maybe_done(story, place))
    for lease in leases:
        if since[bisect_left(places, lease.delivery.place)] > lease.delivery.at:
            yield f"{lease.delivery.place} came before an earlier one of its key was done: {lease}"


def _maybe_done(story: Story, place: Place) -> float:
    """Before that it was not done, nor dead; inf: never."""
    leases = story.messages.get(place, [])
    if place in story.lettered:
        return min((lease.delivery.asked for lease in leases), default=float("-inf"))
    said = [word.asked for lease in leases for word in lease.told if word.verb in ("ack", "dead") and word.outcome != "lost"]
    auto = [lease.delivery.asked for lease in leases if lease.delivery.token is None]
    return min([*said, *auto], default=float("inf"))


def _passed(leases: list[Lease]) -> Iterator[str]:
    """Within one life: what comes after a later one of its key was not done when that was leased."""
    leases = [lease for lease in leases if lease.life == lease.latest_life]
    for _, group in groupby(sorted(leases, key=lambda lease: lease.life), key=lambda lease: lease.life):
        told = list(group)
        furthest: list[Lease] = []
        for lease in told:
            furthest.append(max(furthest[-1], lease, key=lambda made: made.delivery.place) if furthest else lease)
        reads = [lease.delivery.at for lease in told]
        for number, lease in enumerate(told):
            before = bisect_left(reads, lease.delivery.asked)
            if before and furthest[before - 1].delivery.place > lease.delivery.place:
                yield f"{furthest[before - 1].delivery.place} came before {lease.delivery.place}: {furthest[before - 1]} and {lease}"
            former = told[number - 1] if number else None
            if former is not None and _one_answer(former, lease) and former.delivery.place > lease.delivery.place:
                yield f"{former.delivery.place} came before {lease.delivery.place} in one answer: {lease}"


def _one_answer(first: Lease, second: Lease) -> bool:
    one, other = first.delivery, second.delivery
    return (one.client, one.asked, one.at) == (other.client, other.asked, other.at)


# --- dead letters ---------------------------------------------------------------------------------------------------------------


def letters(story: Story) -> Iterator[str]:
    most = story.promises.max_attempts
    for letter in story.log.letters:
        leases = story.messages.get(letter.origin, [])
        buried = any(word.verb == "dead" and word.outcome != "lost" for lease in leases for word in lease.told)
        possible = len(leases) + len(story.log.broken)
        if letter.reason == "nack" and not buried:
            yield f"{letter.id} at {letter.origin} was never nacked dead: {_leases(leases)}"
        if letter.reason == "max_attempts" and (most is None or letter.attempts < most or possible < most):
            yield f"{letter.id} at {letter.origin} is dead after {letter.attempts} attempts of {most}: {_leases(leases)}"
        if any(lease.delivery.id != letter.id for lease in leases):
            yield f"{letter.id} says it was {letter.origin}, where another message is: {_leases(leases)}"
    for origin, count in Counter(letter.origin for letter in story.log.letters).items():
        if count > 1 + len(story.kills):
            yield f"{origin} has {count} letters after {len(story.kills)} kills"


def _leases(leases: list[Lease]) -> str:
    return "; ".join(map(str, leases)) or "it never came"
