"""Behind a load balancer that speaks the PROXY protocol."""

import time
from typing import Any

from twisted.internet.endpoints import TCP4ServerEndpoint
from twisted.protocols.haproxy import proxyEndpoint

from psubd.model import Answer
from psubd.wire.site import Site
from tests.integration.wire.case import SocketCase
from tests.wire.peer import get


class Haproxy(SocketCase):
    def open(self, site: Site) -> Any:
        return self.wait(proxyEndpoint(TCP4ServerEndpoint(self.reactor, 0, interface="127.0.0.1")).listen(site))

    def test_client(self) -> None:
        """The exchange's client is the one that the balancer names; answers are settled as without one."""
        self.listen()
        settled: list[int] = []
        self.endpoint.answer = Answer(body=b"x" * 300_000, settle=settled.append)
        client = self.connect()
        self.run_client(client.send, b"PROXY TCP4 203.0.113.7 127.0.0.1 1234 80\r\n" + get())
        self.assertEqual(len(self.run_client(client.response)[2]), 300_000)
        self.until(lambda: settled == [300_000])
        self.assertEqual(self.endpoint.exchange.client, "203.0.113.7")

    def test_gone_unseen(self) -> None:
        """A client that closed is seen through the wrapper too."""
        self.listen()
        settled: list[int] = []
        client = self.connect()
        self.run_client(client.send, b"PROXY TCP4 203.0.113.7 127.0.0.1 1234 80\r\n" + get("/wait"))
        self.until(lambda: bool(self.waiting.waits))
        client.close()
        time.sleep(0.05)  # the kernel has it; the reactor, which is this thread, has not
        self.waiting.waits[0].callback(Answer(body=b"x", settle=settled.append))
        self.assertEqual(settled, [-1])
