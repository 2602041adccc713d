"""The registrar: who is registered, with what, and every rule of it.

Two places are written, the storage and the registry, and a crash may come between the two. The registry decides: what it does not say
does not count. So the order is chosen such that a crash leaves something that nobody sees:

- a topic is made: storage first. Left: an empty topic that is not registered. Making it again adopts it.
- a topic is altered: storage first. Left: the storage has what was asked for, the registry shows the former. Altering again sets it right;
  a PATCH with the partitions that are there already is no mistake.
- ``sub`` is granted: the group's place in the storage first, under a fresh mark; then binding and group in one change. Left: a place whose
  mark no binding has, which counts nowhere.
- ``sub`` is taken away, an application or a topic is deleted: registry first, so that nobody gets in any more. Left: places that count
  nowhere (their marks are gone), or a topic with data in the storage that is not registered: nobody can read it, and registering it again
  says that it is adopted. The storage is asked whether it is there before the registry is written.

What fails instead of crashing is taken back in the other direction; what cannot be (new partitions, a new setting in ``config``, a storage
that goes away between two calls) is as after a crash.
"""

from zope.interface import implementer

from psubd.interfaces import IRegistrar
from psubd.services.registrar_applications import Applications
from psubd.services.registrar_bindings import Bindings
from psubd.services.registrar_tokens import Tokens


@implementer(IRegistrar)
class Registrar(Applications, Bindings, Tokens):
    """Applications, topics, bindings and tokens of one registry and one storage, both started.

    :param max_message_bytes: of a record's value: topics that are made take it, with key and headers.
    """
