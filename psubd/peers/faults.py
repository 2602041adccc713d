"""Failures on their way to another node: a `PsubdError` arrives as the same class with the same members."""

import inspect
from typing import Any

import msgspec

from psubd import errors
from psubd.errors import Internal, PsubdError


class Told(msgspec.Struct, array_like=True):
    """A failure on the line (MessagePack).

    :ivar names: its class and those above it, up to `PsubdError`: an older node takes the first that it knows.
    :ivar own: what the class's constructor takes beside the detail.
    """

    names: list[str]
    detail: str
    own: dict[str, Any]
    members: dict[str, Any]


def encode_fault(error: PsubdError) -> bytes:
    """The failure's body on the line."""
    names = [cls.__name__ for cls in type(error).__mro__ if issubclass(cls, PsubdError)]
    own = {name: getattr(error, name) for name in own_parameters(type(error)) if hasattr(error, name)}
    return msgspec.msgpack.encode(Told(names, error.detail, own, error.members), enc_hook=str)


def decode_fault(body: bytes) -> PsubdError:
    """What the other end failed with; `Internal` where it cannot be told."""
    try:
        told = msgspec.msgpack.decode(body, type=Told)
        cls = next(filter(None, map(known, told.names)), Internal)
        own = {name: tuple(value) if isinstance(value, list) else value for name, value in told.own.items() if name in own_parameters(cls)}
        return cls(told.detail, **own, **told.members)
    except (msgspec.MsgspecError, TypeError):
        return Internal("another node failed, and what it said of that cannot be read")


def known(name: str) -> type[PsubdError] | None:
    """The class of `psubd.errors` with that name."""
    cls = getattr(errors, name, None)
    return cls if isinstance(cls, type) and issubclass(cls, PsubdError) else None


def own_parameters(cls: type[PsubdError]) -> list[str]:
    """Names that the constructor takes beside ``detail`` and the members; each is kept as an attribute of that name."""
    found = inspect.signature(cls).parameters.values()
    return [parameter.name for parameter in found if parameter.name != "detail" and parameter.kind is not parameter.VAR_KEYWORD]
