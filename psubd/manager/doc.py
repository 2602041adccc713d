"""What a route of the manager says of itself: its inputs are read by it, and the OpenAPI document is made of it.

One description serves both, so that a parameter which is documented is read and one that is not is refused.
"""

from typing import Any, Literal

import msgspec

from psubd.errors import PsubdError
from psubd.model import Role

JSON = "application/json"
PROBLEM = "application/problem+json"

ADMIN: tuple[Role, ...] = ("admin",)
READERS: tuple[Role, ...] = ("admin", "viewer")
SCRAPERS: tuple[Role, ...] = ("admin", "viewer", "metrics")


class Parameter(msgspec.Struct, frozen=True):
    """One query parameter or header. ``shape`` is a type that msgspec knows."""

    name: str
    shape: Any
    text: str
    where: Literal["query", "header"] = "query"


class Reply(msgspec.Struct, frozen=True):
    """One good answer.

    :ivar shape: the JSON body's type; None: no body, or one that is not JSON.
    :ivar media: the content types that it can have; none: no body.
    :ivar headers: headers that it carries beside the common ones.
    """

    text: str
    shape: Any = None
    media: tuple[str, ...] = (JSON,)
    headers: tuple[str, ...] = ()


class Doc(msgspec.Struct, frozen=True):
    """
    :ivar roles: whose token may call it; none: open to everybody.
    :ivar body: the shape of the JSON body; None: the route takes none.
    :ivar refusals: what it refuses beside what every route does.
    :ivar fresh: whether the registry is asked for the newest state first (a write is seen by the next read on any node).
    :ivar conditional: whether it takes ``If-Match``.
    """

    tag: str
    summary: str
    answers: dict[int, Reply]
    roles: tuple[Role, ...] = READERS
    body: Any = None
    parameters: tuple[Parameter, ...] = ()
    refusals: tuple[type[PsubdError], ...] = ()
    fresh: bool = True
    conditional: bool = False

    @property
    def media(self) -> tuple[str, ...]:
        """The content types that a good answer can have."""
        return tuple(dict.fromkeys(media for reply in self.answers.values() for media in reply.media))

    @property
    def query(self) -> dict[str, bool]:
        """The query parameters that it takes, none of them repeatable: as `psubd.fields.query` wants them."""
        return {parameter.name: False for parameter in self.parameters if parameter.where == "query"}


NO_CONTENT = Reply("Done.", media=())
IF_MATCH = Parameter("if-match", str, 'The version that was seen, as `"3"`: another one by now is refused with 412.', "header")
