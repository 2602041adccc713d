"""A daemon whose host's clock is set."""

import os
import sys
import threading
import time

from psubd.testing.wall_clock import set_clock
from tests.integration.process.case import ProcessCase

HOUR_MS = 3_600_000


class ClockTests(ProcessCase):
    def test_jumps(self) -> None:
        """A poll that waits is answered in its time though the wall clock is set back an hour, or ahead, meanwhile; a lease lapses in its time."""
        clock = os.path.join(self.folder, "clock")
        set_clock(clock, 0)
        daemon = self.daemon(twistd=(sys.executable, "-m", "psubd.testing.wall_clock", clock)).start()
        tenant = self.bound(daemon)
        client, publisher = daemon.data(**tenant.subscribe), daemon.data(**tenant.publish)
        for ahead_ms in (-HOUR_MS, HOUR_MS, -2 * HOUR_MS):
            threading.Timer(0.2, set_clock, (clock, ahead_ms)).start()
            self.assertEqual(client.request("GET", "/v1/sub?timeout=700").status, 204)
            self.assertEqual(publisher.request("POST", "/v1/pub/orders", b"x").status, 200)
            threading.Timer(0.2, set_clock, (clock, 0)).start()
            for attempt in (1, 2):
                reply = client.request("GET", "/v1/sub?ack=explicit&ackTimeout=1000&timeout=20000")
                self.assertEqual([message["attempt"] for message in reply.json["messages"]], [attempt], reply)
            acked = client.send("POST", "/v1/ack", {"tokens": [message["ack"] for message in reply.json["messages"]]})
            self.assertEqual(acked.status, 200)
            time.sleep(0.3)
        self.assertEqual(daemon.stop(), -15)
