"""The storage on Kafka that publishes through librdkafka; all else is `KafkaStorage`."""

from collections.abc import Callable, Mapping, Sequence
from functools import partial
from typing import Any

from zope.interface import implementer

from psubd import drivers
from psubd.interfaces import IStorage
from psubd.model import Acks
from psubd.storage.kafka.atlas import Change
from psubd.storage.kafka.backend import KafkaStorage
from psubd.storage.kafka.client import KafkaClient, Postbox
from psubd.storage.kafka.outbox import Outbox, Settled
from psubd.storage.kafka.rd_outbox import DRIVER, RdOutbox
from psubd.storage.kafka.settings import RdKafkaSettings, convert_rd
from psubd.storage.kafka.tail import Round


class RdKafkaClient(KafkaClient):
    """:param hand_over: from any thread: have a call made on the reactor's. :param answer: called there with records that are answered."""

    def __init__(
        self,
        bootstrap: Sequence[str],
        settings: RdKafkaSettings,
        changed: Callable[[str, Change], None],
        came: Callable[[Round], None],
        hand_over: Callable[..., None],
        answer: Callable[[Acks, list[Settled]], None],
    ) -> None:
        self._options, self._hand_over, self._rd_settings = settings.librdkafka(bootstrap), hand_over, settings
        super().__init__(bootstrap, settings, changed, came, answer)

    def outbox(self, acks: Acks, places: range) -> Postbox:
        plain: Callable[[Callable[[list[Settled]], None]], Outbox] = partial(Outbox, self.publishing, places, acks, self.atlas, self.settings)
        return RdOutbox(acks, self._options, self.atlas, self._rd_settings, plain, self._hand_over, partial(self._published, acks))

    def _begin(self) -> None:
        for outbox in self.outboxes.values():
            assert isinstance(outbox, RdOutbox)
            outbox.start()
        super()._begin()


@implementer(IStorage)
class RdKafkaStorage(KafkaStorage):
    """:param settings: the table ``[storage.rdkafka]``; all else as `KafkaStorage`."""

    kind = "rdkafka"
    convert = staticmethod(convert_rd)
    bundled_from = 10
    settings: RdKafkaSettings

    def _new_client(self) -> KafkaClient:
        drivers.listen(DRIVER)
        return RdKafkaClient(self._bootstrap, self.settings, self._heard_of_change, self._heard, self._mailbox.put, self._answer)

    def status(self) -> Mapping[str, Any]:
        from confluent_kafka import libversion

        return {**super().status(), "librdkafka": libversion()[0]}
