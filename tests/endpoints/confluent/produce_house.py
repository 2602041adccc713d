"""The data port on doubles, with Confluent's routes."""

import base64
import json

from psubd.endpoints import confluent
from psubd.endpoints.confluent.refusals import refuse
from psubd.endpoints.confluent.settings import ConfluentSettings
from psubd.errors import PsubdError
from psubd.model import Answer
from psubd.testing.consumers import MemoryConsumers
from tests.endpoints.house import MAX_MESSAGE_BYTES, DataCase, Reply

PLAIN = "application/vnd.kafka.v2+json"


def embedded(format, version=2):
    return f"application/vnd.kafka.{format}.v{version}+json"


def b64(text):
    return base64.b64encode(text.encode()).decode()


class ConfluentCase(DataCase):
    """Errors are told as these routes tell them.

    :ivar settings: of the routes."""

    settings = ConfluentSettings()

    def setUp(self) -> None:
        super().setUp()
        consumers = MemoryConsumers(self.storage, self.gate, self.clock)
        self.routes += confluent.routes(
            self.gate,
            self.publisher,
            self.subscriber,
            consumers,
            self.storage,
            self.registrar,
            self.clock,
            self.settings,
            self.mode,
            MAX_MESSAGE_BYTES,
        )

    def basic(self, *parts):
        return ("authorization", "Basic " + b64(":".join(parts)))

    @property
    def all_keys(self):
        return self.basic(self.shop.pubkey, self.shop.secret, self.shop.subkey)

    def call(self, method, path, document=None, kind=PLAIN, query="", headers=None, accept=None):
        lines = [self.all_keys] if headers is None else list(headers)
        if document is not None:
            lines.append(("content-type", kind))
        if accept is not None:
            lines.append(("accept", accept))
        body = b"" if document is None else document if isinstance(document, bytes) else json.dumps(document).encode()
        self.lines = tuple((name.encode(), value.encode()) for name, value in lines)
        begun = self.begin(method, path, lines, body, query)
        self.clock.advance(0)
        return self.reply(begun)

    def reply(self, deferred, handed=None):
        """As the wire tells it."""

        def told(failure):
            failure.trap(PsubdError)
            return refuse(failure.value, self.lines)

        return super().reply(deferred.addErrback(told), handed)

    def told(self, reply: Reply | Answer, status: int, number: int) -> Reply:
        self.assertEqual((reply.status, reply.json.get("error_code")), (status, number), reply.body)
        self.assertIsInstance(reply.json["message"], str)
        return reply
