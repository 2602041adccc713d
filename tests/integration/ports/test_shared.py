"""One port for several processes, on real sockets."""

import shutil
import socket
import tempfile
from pathlib import Path
from typing import Any

from twisted.internet.defer import Deferred, maybeDeferred
from twisted.internet.protocol import Protocol, ServerFactory
from twisted.trial.unittest import SynchronousTestCase

from psubd.crew import Spot
from psubd.errors import ConfigError
from psubd.ports import Claims, Sharing, listen, place
from psubd.testing.certificates import loopback_certificate
from psubd.testing.waiting import blockon


class SharedPortTests(SynchronousTestCase):
    def setUp(self) -> None:
        from twisted.internet import reactor

        self.reactor: Any = reactor

    def test_shared(self) -> None:
        """Many of one user listen on one port, once it is claimed, and connections go to those that do; who would not share, or claims it too, is
        refused. Any port is one number for all."""
        for description in ("tcp:0:interface=127.0.0.1", r"haproxy:tcp6:0:interface=\:\:1"):
            claims = Claims()
            claimed = place(self.open(claims, description))
            there = Spot.of(description).on(int(claimed))
            listening = [self.open(Sharing(self.reactor), there) for _ in range(2)]
            self.assertEqual({place(port) for port in listening}, {claimed})
            for other in (Claims(), self.reactor):
                refused = self.assertRaises(ConfigError, self.open, other, there)
                self.assertIn("cannot listen: Address already in use", str(refused))
            address = (listening[0].getHost().host, int(claimed))
            for port in listening:
                socket.create_connection(address, 30).close()
                blockon(maybeDeferred(port.stopListening))
            with self.assertRaises(ConnectionRefusedError):
                socket.create_connection(address, 30)
            claims.close()

    def test_shared_tls(self) -> None:
        """Likewise with TLS."""
        folder = tempfile.mkdtemp()
        self.addCleanup(shutil.rmtree, folder)
        made = loopback_certificate(Path(folder))
        description = f"ssl:0:interface=127.0.0.1:privateKey={made.both}:certKey={made.certificate}"
        claims = Claims()
        there = Spot.of(description).on(int(place(self.open(claims, description))))
        listening = [self.open(Sharing(self.reactor), there) for _ in range(2)]
        self.assertEqual(len({place(port) for port in listening}), 1)
        for port in listening:
            blockon(maybeDeferred(port.stopListening))
        claims.close()

    def open(self, opener: Any, description: str) -> Any:
        return blockon(Deferred.fromCoroutine(listen(opener, "listen", description, ServerFactory.forProtocol(Protocol))))
