"""What is asked of consumer instances, as it goes from node to node (`psubd.services.remote_codec.AskedInstance`), and back into a call."""

from typing import Any

from twisted.internet.defer import Deferred

from psubd.interfaces import IConsumers
from psubd.model import Grant
from psubd.services.remote_codec import Dismiss, Enlist, InstanceCall, Look, Marked, Places, Seek, Wished


def called(consumers: IConsumers, grant: Grant, group: str, instance: str, call: InstanceCall) -> "Deferred[Any]":
    """What the call gives."""
    match call:
        case Enlist(spec):
            return consumers.enlist(grant, group, instance, spec)
        case Dismiss():
            return consumers.dismiss(grant, group, instance)
        case Wished(wish):
            return consumers.wish(grant, group, instance, wish)
        case Look():
            return consumers.look(grant, group, instance)
        case Seek(aims):
            return consumers.seek(grant, group, instance, aims)
        case Marked(marks):
            return consumers.commit(grant, group, instance, marks)
        case Places(partitions):
            return consumers.committed(grant, group, instance, partitions)
