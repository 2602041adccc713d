"""What clients get: the shapes of answers, made of what is registered. A key's digest is in none of them."""

from typing import Any, Self

import msgspec

from psubd.interfaces import Change
from psubd.model import AckMode, Application, Backoff, Binding, Cleanup, Elastic, Key, Rate, Role, Start, StoredTopic, Token, Topic


class TokenView(msgspec.Struct, frozen=True):
    name: str
    role: Role
    created_ms: int
    version: int

    @classmethod
    def of(cls, token: Token, version: int) -> "TokenView":
        return cls(token.name, token.role, token.created_ms, version)


class MadeToken(TokenView, frozen=True):
    """``token`` is shown this once."""

    token: str


class KeyView(msgspec.Struct, frozen=True):
    """A key that is valid now; ``until_ms`` null: without end. What it says was shown once, when it was made."""

    until_ms: int | None


class PubkeyView(KeyView, frozen=True):
    """A pubkey is no secret: it is shown."""

    pubkey: str


class ApplicationView(msgspec.Struct, frozen=True):
    """``pubkey`` is the newest; the lists hold the valid keys of each kind, the newest first."""

    id: str
    name: str
    created_ms: int
    version: int
    pubkey: str
    pubkeys: list[PubkeyView]
    secrets: list[KeyView]
    subkeys: list[KeyView]

    @classmethod
    def of(cls, application: Application, version: int, now_ms: int, **made: str) -> Self:
        """:param made: the further members of `MadeApplication`."""
        pubkeys = [PubkeyView(key.until_ms, key.text or "") for key in valid(application.pubkeys, now_ms)]
        secrets, subkeys = ([KeyView(key.until_ms) for key in valid(keys, now_ms)] for keys in (application.secrets, application.subkeys))
        members: dict[str, Any] = {**made, "pubkey": application.pubkeys[0].text, "pubkeys": pubkeys, "secrets": secrets, "subkeys": subkeys}
        return cls(id=application.id, name=application.name, created_ms=application.created_ms, version=version, **members)


class MadeApplication(ApplicationView, frozen=True):
    """``secret`` and ``subkey`` are shown this once."""

    secret: str
    subkey: str


def valid(keys: tuple[Key, ...], now_ms: int) -> list[Key]:
    """Those that have not ended."""
    return [key for key in keys if key.until_ms is None or key.until_ms > now_ms]


class TopicView(msgspec.Struct, frozen=True):
    """A topic as it is registered.

    ``storage`` is how it stands in the storage now (partitions that were added there, limits of an adopted one); null: see
    ``storage_trouble``.
    """

    id: str
    owner: str
    created_ms: int
    version: int
    partitions: int
    replication: int | None
    retention_ms: int | None
    retention_bytes: int | None
    cleanup: Cleanup
    elastic: Elastic | None
    config: dict[str, str]
    adopted: bool
    storage: StoredTopic | None
    storage_trouble: str | None

    @classmethod
    def of(cls, topic: Topic, version: int, stored: StoredTopic | None, trouble: str | None) -> "TopicView":
        return cls(
            topic.id,
            topic.owner,
            topic.created_ms,
            version,
            topic.partitions,
            topic.replication,
            topic.retention_ms,
            topic.retention_bytes,
            topic.cleanup,
            topic.elastic,
            topic.config,
            topic.adopted,
            stored,
            trouble,
        )


class BindingView(msgspec.Struct, frozen=True):
    application: str
    topic: str
    pub: bool
    sub: bool
    ack: AckMode
    ack_timeout_ms: int
    start: Start
    replay: bool
    ordered: bool
    max_attempts: int | None
    dead_letter: str | None
    max_in_flight: int
    backoff: Backoff
    rate: Rate | None
    version: int

    @classmethod
    def of(cls, binding: Binding) -> "BindingView":
        return cls(**{name: getattr(binding, name) for name in cls.__struct_fields__})


class ChangeView(msgspec.Struct, frozen=True):
    """One change of what is registered: who made it, when, and what it touched."""

    serial: int
    at_ms: int
    actor: str
    what: str
    paths: list[str]

    @classmethod
    def of(cls, change: Change) -> "ChangeView":
        return cls(change.serial, change.at_ms, change.actor, change.what, list(change.paths))


class Problem(msgspec.Struct, frozen=True):
    """RFC 9457, with the contract's ``code``. Some refusals have further members."""

    type: str
    title: str
    status: int
    detail: str
    code: str


JsonObject = dict[str, Any]
