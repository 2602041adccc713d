"""Who of several workers has which port."""

from typing import Any

from twisted.trial.unittest import SynchronousTestCase

from psubd.crew import Crew, Spot, address_plus


class SpotTests(SynchronousTestCase):
    def test_of(self) -> None:
        """Port and interface, however they are written; what is no TCP endpoint has no port."""
        for description, kind, port, interface in (
            ("tcp:9090", "tcp", 9090, ""),
            ("tcp:9090:127.0.0.1", "tcp", 9090, "127.0.0.1"),
            ("tcp:interface=10.0.0.5:port=80", "tcp", 80, "10.0.0.5"),
            (r"tcp6:80:interface=\:\:1", "tcp6", 80, "::1"),
            ("haproxy:ssl:443:privateKey=/k.pem", "ssl", 443, ""),
            ("tcp:nope", "tcp", None, ""),
            ("unix:/run/9090", "unix", None, ""),
            ("haproxy", "haproxy", None, ""),
            ("", "", None, ""),
        ):
            spot = Spot.of(description)
            self.assertEqual((spot.kind, spot.port, spot.interface), (kind, port, interface), description)

    def test_plus(self) -> None:
        """The port and nothing else of it changes; any free one stays any."""
        for description, moved in (
            ("tcp:9090", "tcp:9093"),
            ("tcp:interface=10.0.0.5:port=80", "tcp:interface=10.0.0.5:port=83"),
            (r"haproxy:tcp6:80:interface=\:\:1", r"haproxy:tcp6:83:interface=\:\:1"),
            (r"ssl:443:privateKey=/a\:b.pem", r"ssl:446:privateKey=/a\:b.pem"),
            ("tcp:0:interface=127.0.0.1", "tcp:0:interface=127.0.0.1"),
            ("tcp:nope", "tcp:nope"),
            ("unix:/run/9090", "unix:/run/9090"),
        ):
            self.assertEqual(Spot.of(description).plus(3), moved)
        self.assertEqual(Spot.of("tcp:0:interface=127.0.0.1").on(4711), "tcp:4711:interface=127.0.0.1")
        self.assertEqual(Spot.of("tcp:port=0").on(4711), "tcp:port=4711")

    def test_address(self) -> None:
        """The peer address moves with the port; what is none stays."""
        for address, moved in (("host:9092", "host:9094"), ("[fd00::5]:9092", "[fd00::5]:9094"), ("", ""), ("host", "host"), ("host:x", "host:x")):
            self.assertEqual(address_plus(address, 2), moved)


class CrewTests(SynchronousTestCase):
    def crew(self, size: int = 3, **given: Any) -> Crew:
        usual: dict[str, Any] = {
            "folder": "/state",
            "listen": ("tcp:9090",),
            "manager": ("tcp:9191:interface=127.0.0.1",),
            "peer": ("tcp:9291:interface=127.0.0.1",),
            "peer_address": "",
        }
        return Crew(size=size, **{**usual, **given})

    def test_worker(self) -> None:
        """The data port is everybody's, manager and peer ports are counted, folders are apart."""
        worker = self.crew(peer_address="host:9291").worker(2)
        self.assertEqual(
            (worker.listen, worker.manager, worker.peer), (("tcp:9090",), ("tcp:9193:interface=127.0.0.1",), ("tcp:9293:interface=127.0.0.1",))
        )
        self.assertEqual((worker.peer_address, worker.state), ("host:9293", "/state/worker-2"))
        self.assertEqual(self.crew().worker(0, ["tcp:4711"]).listen, ("tcp:4711",))

    def test_sound(self) -> None:
        """Ports that are apart, on other interfaces, or any."""
        for given in (
            {},
            {"manager": ("tcp:9290:interface=127.0.0.1",), "peer": ("tcp:9291:interface=10.0.0.5",)},
            {"listen": ("tcp:0",), "manager": ("tcp:0:interface=127.0.0.1",), "peer": ("tcp:0:interface=127.0.0.1",)},
            {"listen": ("haproxy:tcp:80", "ssl:443:privateKey=/k.pem", "tcp6:81")},
        ):
            self.assertEqual(self.crew(**given).mistakes(), [], given)

    def test_clash(self) -> None:
        """Two that would listen on the same, the data port with one of them too; one line, however many there are."""
        for given, said in (
            (
                {"manager": ("tcp:9290:interface=127.0.0.1",)},
                "workers: the manager port of worker 1 would be 9291, which is the peer port of worker 0 too",
            ),
            ({"manager": ("tcp:9089",)}, "workers: the manager port of worker 1 would be 9090, which is the data port too"),
            ({"peer": ("tcp:9291", "tcp:9292")}, "workers: the peer port of worker 1 would be 9292, which is the peer port of worker 0 too"),
            ({"manager": ("tcp:65534:interface=127.0.0.1",)}, "workers: the manager port of worker 2 would be 65536; a port is 0 to 65535"),
        ):
            (line,) = self.crew(**given).mistakes()
            self.assertTrue(line.startswith(said), line)
