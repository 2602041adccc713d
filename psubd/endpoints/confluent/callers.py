"""Who calls on Confluent's routes: as everywhere, and whom the configuration lets in without credentials."""

import msgspec

from psubd.endpoints.credentials import Callers, refuse_in_query, single_lines
from psubd.interfaces import IExchange, IGate
from psubd.model import Grant


class Guests(Callers):
    """:param anonymous: the application that requests which show no credential at all are of; empty: there is none."""

    def __init__(self, gate: IGate, anonymous: str = "") -> None:
        super().__init__(gate)
        self._anonymous = anonymous

    def publisher(self, exchange: IExchange) -> Grant:
        guest = self._guest(exchange)
        return super().publisher(exchange) if guest is None else msgspec.structs.replace(guest, kind="publish")

    def subscriber(self, exchange: IExchange) -> Grant:
        guest = self._guest(exchange)
        return super().subscriber(exchange) if guest is None else guest

    def either(self, exchange: IExchange) -> Grant:
        guest = self._guest(exchange)
        return super().either(exchange) if guest is None else guest

    def _guest(self, exchange: IExchange) -> Grant | None:
        """The standing of who shows nothing. Half a credential is a mistake, and no guest's; so is one in the query. :raises BadParameter:"""
        if not self._anonymous or single_lines(exchange.headers):
            return None
        refuse_in_query(exchange.raw_query)
        return self._gate.grant_of(self._anonymous)
