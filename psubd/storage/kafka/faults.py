"""What the driver and the brokers fail with -> `PsubdError`.

Two exceptions of our own say what the driver does not: whether a request may have reached a broker (`Lost`) or surely has not (`Unsent`).
"""

from kafka import errors

from psubd.errors import BadBody, BadRecord, InUse, PsubdError, StorageTimeout, StorageUnavailable, TooLarge, TopicMissing


class Unsent(Exception):
    """The request was never sent: no connection, no leader, no coordinator."""


class Lost(Exception):
    """The request was sent, and no answer came."""


class LoginBroken(errors.KafkaConnectionError):  # type: ignore[misc]  # the driver has no types
    """The broker closed the connection while psubd logged in."""


DENIED = (errors.AuthorizationError, errors.SaslAuthenticationFailedError, errors.UnsupportedSaslMechanismError)
GONE = (errors.UnknownTopicOrPartitionError, errors.UnknownTopicIdError, errors.InconsistentTopicIdError)
TOO_LARGE = (errors.MessageSizeTooLargeError, errors.RecordListTooLargeError)
REFUSED = (*TOO_LARGE, errors.InvalidRecordError, errors.InvalidTimestampError, errors.CorruptRecordError, errors.PolicyViolationError)
"""What a broker answers to a batch that it will never take, and did not take."""

MAY_BE_STORED = (
    errors.RequestTimedOutError,
    errors.NotEnoughReplicasAfterAppendError,
    errors.NetworkExceptionError,
    errors.KafkaStorageError,
    errors.UnknownError,
)
"""Answers after which the records may be in the leader's log."""

WHILE_IT_WAITS = (errors.NotLeaderForPartitionError, errors.FencedLeaderEpochError)
"""The same with acks all: a leader that is deposed while it waits for its replicas answers so after it appended."""

WRONG_IDENTITY = (
    errors.OutOfOrderSequenceNumberError,
    errors.InvalidProducerEpochError,
    errors.UnknownProducerIdError,
    errors.InvalidProducerIdMappingError,
    errors.ProducerFencedError,
)
"""The broker knows another story of our producer id. Nothing of the batch was stored; another id goes on."""

NO_COORDINATOR = (errors.NotCoordinatorError, errors.CoordinatorNotAvailableError, errors.CoordinatorLoadInProgressError)
TAKEN = (
    errors.UnknownMemberIdError,
    errors.IllegalGenerationError,
    errors.RebalanceInProgressError,
    errors.NonEmptyGroupError,
    errors.GroupSubscribedToTopicError,
    errors.StaleMemberEpochError,
    errors.FencedMemberEpochError,
    errors.InconsistentGroupProtocolError,
)
"""Somebody is a member of the group."""

BAD_TOPIC = (
    errors.InvalidTopicError,
    errors.InvalidPartitionsError,
    errors.InvalidReplicationFactorError,
    errors.InvalidReplicationAssignmentError,
    errors.InvalidConfigurationError,
    errors.InvalidRequestError,
    errors.PolicyViolationError,
)
RETRIABLE = (errors.RetriableError, errors.NotControllerError)


def words(error: BaseException) -> str:
    """What went wrong, in a few words for a person; no address, no credential."""
    if isinstance(error, Unsent | Lost) and error.__cause__ is not None:
        return words(error.__cause__)
    if isinstance(error, DENIED):
        return "it refuses psubd's credentials, or they lack a right"
    if isinstance(error, LoginBroken):
        return "it broke off the login: are psubd's credentials right?"
    if isinstance(error, errors.KafkaConnectionError) and "Handshake failed" in str(error):
        return "the TLS handshake with the broker failed"
    if isinstance(error, errors.KafkaConnectionError | errors.NodeNotReadyError):
        return "no connection to the broker"
    if isinstance(error, errors.RequestTimedOutError | errors.KafkaTimeoutError):
        return "the broker does not answer"
    if isinstance(error, Unsent | Lost):
        return str(error)
    return type(error).__name__.removesuffix("Error")


def of_record(error: BaseException, topic: str, message: str | None = None) -> PsubdError:
    """Why a record was not stored, surely."""
    said = f": {message}" if message else ""
    if isinstance(error, TOO_LARGE):
        return TooLarge(f"topic {topic!r} does not take a record of this size{said}")
    if isinstance(error, GONE):
        return TopicMissing(f"topic {topic!r} is gone from Kafka")
    if isinstance(error, REFUSED):
        return BadRecord(f"Kafka refuses the record{said or f': {words(error)}'}")
    return StorageUnavailable(f"Kafka cannot take the record now: {words(error)}")


def maybe_stored(error: BaseException) -> PsubdError:
    """Why it cannot be told whether a record was stored."""
    return StorageTimeout(f"Kafka did not answer in time ({words(error)}): the message may be stored or not")


def of_topic(error: BaseException, topic: str, message: str | None = None) -> PsubdError:
    """Why a topic could not be made, changed or read."""
    if isinstance(error, GONE):
        return TopicMissing(f"topic {topic!r} is not in Kafka")
    if isinstance(error, BAD_TOPIC):
        return BadBody(f"Kafka refuses it for topic {topic!r}: {message or words(error)}")
    return StorageUnavailable(f"Kafka cannot do it now: {words(error)}")


def of_group(error: BaseException, group: str) -> PsubdError:
    """Why a group's place could not be kept."""
    if isinstance(error, TAKEN):
        return InUse(f"the Kafka group {group!r} has members that are not psubd's; stop them, or give psubd another group")
    if isinstance(error, GONE):
        return TopicMissing(f"the Kafka group {group!r} commits on a topic that is gone")
    if isinstance(error, errors.OffsetMetadataTooLargeError | errors.InvalidCommitOffsetSizeError):
        return TooLarge("the place's metadata is longer than Kafka takes (offset.metadata.max.bytes)")
    return StorageUnavailable(f"Kafka cannot keep the group's place now: {words(error)}")


def unavailable(error: BaseException) -> PsubdError:
    """Of a call that changes nothing, or surely changed nothing."""
    return error if isinstance(error, PsubdError) else StorageUnavailable(f"Kafka does not serve now: {words(error)}")


def timeout(error: BaseException) -> PsubdError:
    """Of a call that may have changed something."""
    if isinstance(error, PsubdError):
        return error
    if isinstance(error, Lost):
        return StorageTimeout(f"Kafka did not answer in time ({words(error)}): it may be done or not")
    return unavailable(error)
