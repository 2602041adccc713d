"""What `test_sockets` and `test_tls` promise holds for hot routes too."""

from tests.integration.wire import test_haproxy, test_sockets, test_tls


class HotSettle(test_sockets.Settle):
    hot = True


class HotRefusals(test_sockets.Refusals):
    hot = True


class HotClients(test_sockets.Clients):
    hot = True


class HotDrain(test_sockets.Drain):
    hot = True


class HotTls(test_tls.Tls):
    hot = True


class HotHaproxy(test_haproxy.Haproxy):
    hot = True
