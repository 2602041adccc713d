"""What Confluent's routes are told by the configuration."""

import msgspec


class ConfluentSettings(msgspec.Struct, frozen=True):
    """As `psubd.config.Config` names them.

    :ivar anonymous: the application that requests without credentials are of; empty: they are refused.
    :ivar base_url: what ``base_uri`` begins with, whatever the request says; empty: what the request says.
    :ivar trusted_proxies: addresses, or networks as ``10.0.0.0/8``, whose ``Forwarded`` and ``X-Forwarded-*`` are believed.
    :ivar request_timeout_ms: how long a read waits where its instance does not say. :ivar request_max_bytes: payload of one answer, at most.
    :ivar application_topics: topics that an application may own to make more by ``POST /admin/topics``; 0: none are made there.
    """

    anonymous: str = ""
    base_url: str = ""
    trusted_proxies: tuple[str, ...] = ()
    request_timeout_ms: int = 1_000
    request_max_bytes: int = 67_108_864
    application_topics: int = 100
