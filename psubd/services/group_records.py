"""The groups' records in the registry: ``/groups/<full name>``."""

from bisect import bisect_left
from collections.abc import Callable, Mapping

import msgspec

from psubd.errors import BadParameter, TooManyGroups, TopicNotBound
from psubd.fields import application_id, topic_id
from psubd.interfaces import ISnapshot, Plan, Put
from psubd.model import Binding, Bindings, Group, GroupTopic

MAX_GROUPS = 1000
"""Groups an application, its own one counted (contract, section 3)."""

ROOT = "/groups"


def path_of(name: str) -> str:
    return f"{ROOT}/{name}"


def application_of(name: str) -> str:
    """The application that the group of that full name belongs to."""
    return name.partition(".")[0]


def check_name(name: str) -> None:
    """:raises BadParameter: ``name`` is no group's full name."""
    application, dot, rest = name.partition(".")
    if not application_id(application) or (dot and not topic_id(rest)):
        raise BadParameter("group: letters, digits, . _ - only, at most 200, not beginning with __")


def group_of(snapshot: ISnapshot, name: str) -> Group | None:
    """The group's record, if there is one."""
    entry = snapshot.get(path_of(name))
    return None if entry is None else msgspec.json.decode(entry.data, type=Group)


def binding_of(snapshot: ISnapshot, application: str, topic: str) -> Binding | None:
    """The binding, if it grants ``sub``."""
    entry = snapshot.get(f"/bindings/{application}")
    binding = None if entry is None else msgspec.json.decode(entry.data, type=Bindings).items.get(topic)
    return binding if binding is not None and binding.sub else None


def still_bound(snapshot: ISnapshot, application: str, topic: str, record: GroupTopic) -> bool:
    """Whether the application is bound to the topic as it was when ``record`` was made."""
    binding = binding_of(snapshot, application, topic)
    return binding is not None and binding.mark == record.mark


def names_of(snapshot: ISnapshot, application: str | None) -> list[str]:
    """The full names of the application's groups (None: of everybody), sorted."""
    return list(snapshot.children(ROOT)) if application is None else named_below(snapshot, ROOT, application)


def named_below(snapshot: ISnapshot, root: str, application: str) -> list[str]:
    """Of the names below ``root`` the application's own one, and those that begin with it and a dot; sorted."""
    names = snapshot.children(root)
    # "-" sorts before ".", and ids hold both: the application's own name and what begins with "<id>." are two places.
    first = bisect_left(names, application + ".")
    last = bisect_left(names, application + "/")  # "/" follows "."
    own = [application] if snapshot.get(f"{root}/{application}") is not None else []
    return own + list(names[first:last])


def check_room(snapshot: ISnapshot, name: str) -> None:
    """:raises TooManyGroups: the group is not there, and would be one too many."""
    application = application_of(name)
    if snapshot.get(path_of(name)) is None and len(names_of(snapshot, application)) >= MAX_GROUPS:
        raise TooManyGroups(f"application {application!r} has {MAX_GROUPS} groups, which is the most; delete one that is not used")


def enrol(name: str, topics: Mapping[str, GroupTopic], what: str, now: int, reset: bool = False) -> Callable[[ISnapshot, int], Plan]:
    """The change that writes ``topics`` into the group's record, and makes the group where it is not there.

    A topic that was revoked meanwhile is left out; where all were: TopicNotBound. One group too many: TooManyGroups.

    :param now: ms since the epoch. :param reset: the change's serial becomes the topics' reset serial.
    """

    def plan(snapshot: ISnapshot, serial: int) -> Plan:
        group = group_of(snapshot, name)
        application = application_of(name)
        if group is None:
            check_room(snapshot, name)
            group = Group(name, application, serial, now)
        written = {topic: record for topic, record in topics.items() if still_bound(snapshot, application, topic, record)}
        if not written:
            raise TopicNotBound(f"application {application!r} is no longer bound to {', '.join(sorted(topics))} as it was; ask again")
        if reset:
            written = {topic: msgspec.structs.replace(record, reset=serial) for topic, record in written.items()}
        group = msgspec.structs.replace(group, topics={**group.topics, **written})
        return Plan(f"{what} {name} {' '.join(sorted(written))}", (Put(path_of(name), msgspec.json.encode(group)),))

    return plan
