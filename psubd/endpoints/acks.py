"""POST /v1/ack, /v1/nack, /v1/extend: explicit acks, which are not built yet. The routes are there and say so."""

from psubd.endpoints.credentials import Callers
from psubd.errors import NotSupported
from psubd.interfaces import IExchange
from psubd.model import Answer


class Acking:
    """Credentials are judged first, so that the answer tells a stranger nothing."""

    def __init__(self, callers: Callers) -> None:
        self._callers = callers

    def refuse(self, exchange: IExchange) -> Answer:
        """:raises NotSupported: always."""
        self._callers.subscriber(exchange)
        raise NotSupported("explicit acks are not built yet; with ack=auto a message is done once its answer was handed over")
