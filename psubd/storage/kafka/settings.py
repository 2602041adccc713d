"""What ``[storage.kafka]`` and the URL may say."""

import os
from collections.abc import Mapping, Sequence
from typing import Annotated, Any, Literal

import msgspec
from msgspec import Meta

SCHEME, RD_SCHEME = "kafka", "rdkafka"
USERNAME_VARIABLE, PASSWORD_VARIABLE = "PSUBD_KAFKA_USERNAME", "PSUBD_KAFKA_PASSWORD"
WHERE = f"set {USERNAME_VARIABLE} and {PASSWORD_VARIABLE}, or username and password in the file"
KEY_PASSWORD_VARIABLE = "PSUBD_KAFKA_TLS_KEY_PASSWORD"  # noqa: S105 - the name, not the value

MOST_BYTES = 128 * 1024 * 1024
"""The largest request; brokers take 100 MiB (socket.request.max.bytes)."""

Protocol = Literal["PLAINTEXT", "SSL", "SASL_PLAINTEXT", "SASL_SSL"]
Mechanism = Literal["PLAIN", "SCRAM-SHA-256", "SCRAM-SHA-512"]
Compression = Literal["none", "gzip", "snappy", "lz4", "zstd"]
Bytes = Annotated[int, Meta(ge=1, le=1 << 40)]
Milliseconds = Annotated[int, Meta(ge=1, le=3_600_000)]
Connections = Annotated[int, Meta(ge=1, le=64)]


class KafkaSettings(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """Names that end in ``_ms`` are milliseconds, in ``_bytes`` bytes.

    :ivar group_prefix: goes before a group's full name to make its Kafka group id.
    :ivar storage_timeout_ms: a call that has no answer by then fails (a second later at the latest).
    :ivar request_timeout_ms: a broker that takes longer for one request is given up, and another tried: less than half of the former.
    :ivar linger_ms: how long a record that finds its broker idle waits for others. While a request is on its way records gather anyway.
    :ivar batch_bytes: of one partition in one request. 512 KiB: 16 KiB (the driver's default) gave half the rate.
    :ivar buffer_bytes: records that wait to be sent; more are refused (503).
    :ivar metadata_interval_ms: how soon partitions that somebody else added are seen.
    :ivar page_bytes: of one read from a broker. :ivar window_bytes: kept of the end of one partition that somebody waits on, and two
        pages beside them where somebody reads further behind.
    :ivar cache_bytes: of all that was read and is kept for others.
    :ivar publish_connections: to each broker for ``acks: all`` (``1`` and ``0`` have one each). Two gave 0.6 of the rate of one: smaller batches.
    :ivar read_connections: for what lies behind.
    :ivar commit_connections: a connection carries one commit at a time.
    """

    security_protocol: Protocol = "PLAINTEXT"
    sasl_mechanism: Mechanism | None = None
    username: str | None = None
    password: str | None = None
    tls_ca_file: str | None = None
    tls_certificate_file: str | None = None
    tls_key_file: str | None = None
    tls_key_password: str | None = None
    tls_check_hostname: bool = True
    client_id: str = "psubd"
    group_prefix: str = "psubd."
    compression: Compression = "none"
    storage_timeout_ms: Milliseconds = 10_000
    request_timeout_ms: Milliseconds = 4_000
    linger_ms: Annotated[int, Meta(ge=0, le=1000)] = 0
    batch_bytes: Bytes = 524_288
    buffer_bytes: Bytes = 67_108_864
    metadata_interval_ms: Milliseconds = 2_000
    page_bytes: Bytes = 524_288
    window_bytes: Bytes = 2_097_152
    cache_bytes: Bytes = 134_217_728
    publish_connections: Connections = 1
    read_connections: Connections = 2
    commit_connections: Connections = 6

    def __repr__(self) -> str:
        return f"<KafkaSettings {self.security_protocol}>"

    @property
    def storage_timeout_s(self) -> float:
        return self.storage_timeout_ms / 1000

    def driver(self) -> dict[str, Any]:
        """The options of the driver's connections."""
        return {
            "security_protocol": self.security_protocol,
            "sasl_mechanism": self.sasl_mechanism,
            "sasl_plain_username": self.username,
            "sasl_plain_password": self.password,
            "ssl_cafile": self.tls_ca_file,
            "ssl_certfile": self.tls_certificate_file,
            "ssl_keyfile": self.tls_key_file,
            "ssl_password": self.tls_key_password,
            "ssl_check_hostname": self.tls_check_hostname,
            "request_timeout_ms": self.request_timeout_ms,
            "socket_connection_setup_timeout_ms": min(3_000, self.request_timeout_ms),
            "socket_connection_setup_timeout_max_ms": self.request_timeout_ms,
            "reconnect_backoff_ms": 50,
            "reconnect_backoff_max_ms": 1_000,  # its default of 30 s would keep a node away from a broker that is back
            "receive_message_max_bytes": 128 * 1024 * 1024,
            "max_in_flight_requests_per_connection": 1_000_000,  # past it the driver fails requests instead of queueing them
        }


class RdKafkaSettings(KafkaSettings, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """``[storage.rdkafka]``: the same, where records go out through librdkafka.

    :ivar linger_ms: how long librdkafka waits for more of many records of a partition; few are sent at once (`rd_outbox.FEW`).
    """

    linger_ms: Annotated[float, Meta(ge=0, le=1000)] = 0.5  # type: ignore[assignment]

    def librdkafka(self, bootstrap: Sequence[str]) -> dict[str, Any]:
        """The options of its producers, but for what the level of acks asks."""
        kept = {
            "sasl.mechanism": self.sasl_mechanism,
            "sasl.username": self.username,
            "sasl.password": self.password,
            "ssl.ca.location": self.tls_ca_file,
            "ssl.certificate.location": self.tls_certificate_file,
            "ssl.key.location": self.tls_key_file,
            "ssl.key.password": self.tls_key_password,
        }
        if self.security_protocol.endswith("SSL"):
            kept["ssl.endpoint.identification.algorithm"] = "https" if self.tls_check_hostname else "none"
        return {
            "bootstrap.servers": ",".join(bootstrap),
            "client.id": f"{self.client_id}-librdkafka",
            "security.protocol": self.security_protocol,
            **{name: value for name, value in kept.items() if value is not None},
            "compression.type": self.compression,
            "linger.ms": self.linger_ms,
            "batch.size": self.batch_bytes,
            "message.max.bytes": MOST_BYTES,  # what a topic takes is judged by the topic's own setting; its default refuses 1,000,000 bytes
            "partitioner": "murmur2_random",  # psubd sets each record's partition; should one ever have none, then as Java's clients do
            "queue.buffering.max.kbytes": self.buffer_bytes // 1024 + MOST_BYTES // 1024,  # psubd counts itself
            "queue.buffering.max.messages": 0,
            "delivery.timeout.ms": self.storage_timeout_ms,
            "request.timeout.ms": self.request_timeout_ms,
            "socket.timeout.ms": max(self.request_timeout_ms, 1_000),
            "socket.connection.setup.timeout.ms": max(1_000, min(3_000, self.request_timeout_ms)),
            "socket.nagle.disable": True,
            "retry.backoff.ms": 50,
            "retry.backoff.max.ms": 400,
            "reconnect.backoff.ms": 50,
            "reconnect.backoff.max.ms": 1_000,
            "topic.metadata.propagation.max.ms": 5_000,
            "topic.metadata.refresh.interval.ms": 10_000,  # of new partitions; until then `Outbox` serves them
            "allow.auto.create.topics": False,
        }


def convert_rd(table: Mapping[str, Any], environ: Mapping[str, str] | None = None) -> RdKafkaSettings:
    """As `convert`, for ``[storage.rdkafka]``."""
    return msgspec.convert(with_credentials(table, environ), RdKafkaSettings)


def convert(table: Mapping[str, Any], environ: Mapping[str, str] | None = None) -> KafkaSettings:
    """The settings of the table, credentials of the environment over the file's.

    :raises msgspec.ValidationError: names the setting and what it must be.
    """
    return msgspec.convert(with_credentials(table, environ), KafkaSettings)


def with_credentials(table: Mapping[str, Any], environ: Mapping[str, str] | None = None) -> dict[str, Any]:
    """The table, credentials of the environment over its own."""
    environ = os.environ if environ is None else environ
    told = dict(table)
    for name, variable in (("username", USERNAME_VARIABLE), ("password", PASSWORD_VARIABLE), ("tls_key_password", KEY_PASSWORD_VARIABLE)):
        if environ.get(variable):
            told[name] = environ[variable]
    return told


def addresses(url: str, scheme: str = SCHEME) -> list[str]:
    """The ``host:port`` of each broker that ``kafka://host:port,host:port`` names. :raises ValueError: with what is wrong, without credentials."""
    named, _, rest = url.partition("://")
    if named != scheme or not rest:
        raise ValueError(f"write it as {scheme}://host:port,host:port")
    if "@" in rest:
        raise ValueError(
            f"credentials do not belong into the URL; use {USERNAME_VARIABLE} and {PASSWORD_VARIABLE}, or username and password in the file"
        )
    rest = rest.removesuffix("/")
    if any(character in rest for character in "/?#"):
        raise ValueError(f"it has brokers only: {scheme}://host:port,host:port; settings go into [storage.{scheme}]")
    return [address(part) for part in rest.split(",")]


def address(text: str) -> str:
    """``text`` if it is ``host:port`` (``[...]:port`` for IPv6; port 9092 where none is named). :raises ValueError:"""
    host, colon, port = text.rpartition(":")
    if not colon or text.endswith("]"):
        host, port = text, "9092"
    if not host or not port.isascii() or not port.isdecimal() or not 0 < int(port) < 65536 or (":" in host and not host.startswith("[")):
        raise ValueError(f"{text!r} is no broker's address; write host:port")
    return f"{host}:{port}"


def mistakes(settings: KafkaSettings, scheme: str = SCHEME) -> list[str]:
    """What in the settings cannot work together."""
    found = [*_security(settings), *_files(settings), *_timeouts(settings), *_codec(settings)]
    return [f"storage.{scheme}.{each}" for each in found]


def _security(settings: KafkaSettings) -> list[str]:
    sasl = settings.security_protocol.startswith("SASL")
    found = []
    if sasl and settings.sasl_mechanism is None:
        found.append("sasl_mechanism: security_protocol is SASL; name PLAIN, SCRAM-SHA-256 or SCRAM-SHA-512")
    if sasl and not (settings.username and settings.password):
        found.append(f"username, password: security_protocol is SASL; {WHERE}")
    if not sasl and settings.sasl_mechanism is not None:
        found.append("sasl_mechanism: takes no effect with this security_protocol; use SASL_SSL or SASL_PLAINTEXT")
    return found


def _files(settings: KafkaSettings) -> list[str]:
    named = {name: getattr(settings, name) for name in ("tls_ca_file", "tls_certificate_file", "tls_key_file")}
    found = [f"{name}: {path!r} cannot be read" for name, path in named.items() if path is not None and not os.access(path, os.R_OK)]
    if any(named.values()) and not settings.security_protocol.endswith("SSL"):
        found.append("tls_*: take no effect with this security_protocol; use SSL or SASL_SSL")
    if settings.tls_key_file is not None and settings.tls_certificate_file is None:
        found.append("tls_key_file: needs tls_certificate_file too")
    return found


def _timeouts(settings: KafkaSettings) -> list[str]:
    if settings.request_timeout_ms * 2 > settings.storage_timeout_ms:
        return ["request_timeout_ms: at most half of storage_timeout_ms, so that a second broker can be tried in time"]
    return []


def _codec(settings: KafkaSettings) -> list[str]:
    from kafka import codec  # here, so that listing the settings does not import the driver

    if settings.compression != "none" and not getattr(codec, f"has_{settings.compression}")():
        package = {"snappy": "python-snappy", "lz4": "lz4", "zstd": "zstandard"}[settings.compression]
        return [f"compression: {settings.compression} needs the package {package}"]
    return []
