"""What Confluent's routes alone refuse: errors whose number is their own there (`error_code`)."""

from typing import ClassVar

from psubd.errors import Exists, NotAcceptable, PsubdError


class Fault(PsubdError):
    """:cvar error_code: the number in the body."""

    error_code: ClassVar[int]


class BadInstance(Fault):
    """A consumer instance was asked for with a setting that has no such value."""

    status, code, title, error_code = 422, "bad_body", "The instance's configuration is not valid", 42204


class NoSchemas(Fault):
    """Avro, JSON Schema and Protobuf need a registry of schemas; psubd has none."""

    status, code, title, error_code = 422, "bad_body", "Schemas are not served", 42205


class BadFetch(Fault):
    """``fetch.min.bytes`` is out of range."""

    status, code, title, error_code = 400, "bad_body", "fetch.min.bytes is out of range", 40001


class Incomplete(Fault):
    """The body lacks what it must have."""

    status, code, title, error_code = 422, "bad_body", "The body lacks something", 422


class SecondTopic(Exists, Fault):
    """The first version of the API reads one topic with one instance."""

    title, error_code = "The instance reads another topic", 40901


class OtherFormat(NotAcceptable, Fault):
    """The client accepts another embedded format than the instance has."""

    title, error_code = "The instance has another format", 40601
