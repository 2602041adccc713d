"""The consumer instances in the registry: ``/instances/<full name of the group>`` (`psubd.model.Instances`).

The order of a record's instances is that of their wishes: of two that assigned a partition by hand the later one has it, at every node.
"""

from collections.abc import Callable, Mapping

import msgspec

from psubd.errors import InstanceExists, InstanceMissing, TooManyGroups
from psubd.interfaces import Delete, ISnapshot, Plan, Put
from psubd.model import Instances, InstanceSpec, Wish
from psubd.services.group_records import application_of, named_below

ROOT = "/instances"

MOST = 1000
"""Instances an application, over all its groups: as many as it may have groups."""

Change = Callable[[ISnapshot, int], Plan]


def path_of(name: str) -> str:
    return f"{ROOT}/{name}"


def instances_of(snapshot: ISnapshot, name: str) -> Instances:
    """Those of the group of that full name."""
    entry = snapshot.get(path_of(name))
    return Instances() if entry is None else msgspec.json.decode(entry.data, type=Instances)


def count_of(snapshot: ISnapshot, application: str) -> int:
    """How many instances the application has."""
    return sum(len(instances_of(snapshot, name).items) for name in named_below(snapshot, ROOT, application))


def enlist(name: str, id: str, spec: InstanceSpec, now: int) -> Change:
    """The change that makes the instance. InstanceExists, TooManyGroups. :param now: ms since the epoch."""

    def plan(snapshot: ISnapshot, serial: int) -> Plan:
        items = instances_of(snapshot, name).items
        if id in items:
            raise InstanceExists(f"group {name!r} has a consumer instance {id!r} already; choose another name, or delete that one")
        if count_of(snapshot, application_of(name)) >= MOST:
            raise TooManyGroups(
                f"application {application_of(name)!r} has {MOST} consumer instances, which is the most; delete those that are not used"
            )
        made = msgspec.structs.replace(spec, serial=serial, created_ms=now)
        return Plan(f"instance.created {name} {id}", (written(name, {**items, id: made}),))

    return plan


def dismiss(name: str, id: str, serial: int) -> Change:
    """The change that takes the instance away. InstanceMissing: it is not there, or another one. :param serial: `InstanceSpec.serial`."""

    def plan(snapshot: ISnapshot, _: int) -> Plan:
        items = dict(instances_of(snapshot, name).items)
        take(items, name, id, serial)
        return Plan(f"instance.left {name} {id}", (written(name, items),))

    return plan


def wish(name: str, id: str, serial: int, wished: Wish) -> Change:
    """The change of what the instance reads; it is the last one then. InstanceMissing."""

    def plan(snapshot: ISnapshot, _: int) -> Plan:
        items = dict(instances_of(snapshot, name).items)
        spec = take(items, name, id, serial)
        items[id] = msgspec.structs.replace(spec, wish=wished)
        return Plan(f"instance.wished {name} {id}", (written(name, items),))

    return plan


def gone_with(snapshot: ISnapshot, name: str) -> tuple[Delete, ...]:
    """What a change that takes the group away writes beside."""
    return () if snapshot.get(path_of(name)) is None else (Delete(path_of(name)),)


def take(items: dict[str, InstanceSpec], name: str, id: str, serial: int) -> InstanceSpec:
    """Remove that very instance. :raises InstanceMissing:"""
    spec = items.get(id)
    if spec is None or spec.serial != serial:
        raise InstanceMissing(f"group {name!r} has no consumer instance {id!r}")
    return items.pop(id)


def written(name: str, items: Mapping[str, InstanceSpec]) -> Put | Delete:
    return Put(path_of(name), msgspec.json.encode(Instances(dict(items)))) if items else Delete(path_of(name))
