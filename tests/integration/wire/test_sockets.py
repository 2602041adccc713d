"""What only real sockets show: kernels' buffers, FIN and RST, half-closed connections, bytes that nobody has read yet."""

import http.client
import time

from twisted.internet.threads import deferToThread

from psubd.interfaces import IOutlet
from psubd.model import Answer
from tests.integration.wire.case import Client, SocketCase
from tests.wire.peer import get, post

MIB = 1_048_576


class Settle(SocketCase):
    def answer(self, size: int) -> list[int]:
        settled: list[int] = []
        self.endpoint.answer = Answer(body=b"x" * size, settle=settled.append)
        return settled

    def test_all(self) -> None:
        """A client that reads: settled with the whole length, for small and large bodies on one connection."""
        self.listen()
        client = self.connect()
        for size in (0, 1, 65_536, 5 * MIB):
            settled = self.answer(size)
            self.assertEqual(len(self.run_client(client.send(get()).response)[2]), size)
            self.until(lambda settled=settled: bool(settled))
            self.assertEqual(settled, [size])

    def test_slow(self) -> None:
        """A client that reads late is waited for; it is not settled while most of the body is still here."""
        self.listen()
        settled = self.answer(16 * MIB)
        client = self.connect(4096).send(get())
        self.until(lambda: bool(self.endpoint.calls))
        self.turn(0.3)
        self.assertEqual(settled, [])
        self.assertEqual(len(self.run_client(client.response)[2]), 16 * MIB)
        self.until(lambda: bool(settled))
        self.assertEqual(settled, [16 * MIB])

    def test_steady(self) -> None:
        """A client that takes a little all the time is not broken, although no portion is taken within the timeout."""
        self.listen(write_timeout_ms=2500)
        settled = self.answer(16 * MIB)
        client = self.connect(4096).send(get())

        def sip() -> None:
            for _ in range(100):
                client.wrapped.recv(512)
                time.sleep(0.05)

        self.run_client(sip)
        self.assertEqual(settled, [])
        self.assertEqual(len(self.site.port.connections), 1)

    def test_stalled(self) -> None:
        """A client that takes nothing for the timeout is broken: settled with less, and the connection is reset."""
        self.listen(write_timeout_ms=300)
        settled = self.answer(16 * MIB)
        client = self.connect(4096).send(get())
        self.until(lambda: bool(settled))
        self.assertLess(settled[0], 16 * MIB)
        self.assertEqual(settled[0] % 65_536, 0)
        self.assertTrue(self.run_client(client.closed))

    def test_reset(self) -> None:
        """A connection that is reset in the middle of an answer is settled with less."""
        self.listen()
        settled = self.answer(16 * MIB)
        client = self.connect(4096).send(get())
        self.until(lambda: bool(self.endpoint.calls))
        self.turn(0.1)
        client.reset()
        self.until(lambda: bool(settled))
        self.assertLess(settled[0], 16 * MIB)

    def test_does_not_stand_any_more(self) -> None:
        """An answer that ceases to stand while its client takes none of it: the connection is reset, and nothing more comes, though the client
        reads again. What the kernel had was all there is."""
        self.listen()
        settled: list[int] = []
        standing = [True]
        self.endpoint.answer = Answer(body=b"x" * (16 * MIB), settle=settled.append, stands=lambda: bool(standing))
        client = self.connect(4096).send(get())
        self.until(lambda: bool(self.endpoint.calls))
        self.turn(0.3)
        standing.clear()
        self.assertTrue(self.run_client(client.closed))
        self.until(lambda: bool(settled))
        self.assertLess(settled[0], 16 * MIB)
        self.assertLess(len(client.buffer), 16 * MIB)

    def test_fell_while_stopped(self) -> None:
        """What was written in one turn while more of the connection was unsent, and ceased to stand before the next: the client gets nothing of it.
        So a process that was stopped in between gives nothing out when it goes on."""
        self.listen()
        settled: list[int] = []
        standing = [True]
        client = self.connect().send(get("/wait"))
        self.until(lambda: bool(self.waiting.waits))
        (channel,) = self.site.port.connections
        channel.unsent = True  # type: ignore[attr-defined]
        self.waiting.waits[0].callback(Answer(body=b"message", settle=settled.append, stands=lambda: bool(standing)))
        standing.clear()
        self.assertTrue(self.run_client(client.closed))
        self.assertEqual((client.buffer, settled), (b"", [-1]))

    def test_at_once(self) -> None:
        """A small answer is with the operating system, and settled, before the endpoint's call has come back; it is asked for right before."""
        self.listen()
        settled: list[int] = []
        asked: list[int] = []
        client = self.connect().send(get("/wait"))
        self.until(lambda: bool(self.waiting.waits))
        self.waiting.waits[0].callback(Answer(body=b"message", settle=settled.append, stands=lambda: not asked.append(len(settled))))
        self.assertEqual((settled, asked), ([7], [0]))
        self.assertEqual(self.run_client(client.response)[2], b"message")

    def test_gone_while_waiting(self) -> None:
        """FIN and RST while a request waits: the endpoint is cancelled."""
        self.listen()
        for leave in (Client.close, Client.reset):
            self.waiting.cancelled = 0
            client = self.connect().send(get("/wait"))
            self.until(lambda: any(not wait.called for wait in self.waiting.waits))
            leave(client)
            self.until(lambda: self.waiting.cancelled == 1)

    def test_gone_unseen(self) -> None:
        """A client that has closed is seen before an answer is handed over, also where the reactor has not read that yet."""
        self.listen()
        for leave in (Client.close, Client.reset):
            settled: list[int] = []
            client = self.connect().send(get("/wait"))
            self.until(lambda: any(not wait.called for wait in self.waiting.waits))
            leave(client)
            time.sleep(0.05)  # the kernel has it; the reactor, which is this thread, has not
            self.waiting.waits[-1].callback(Answer(body=b"message", settle=settled.append))
            self.assertEqual(settled, [-1])
            self.until(lambda: not self.site.port.connections)
            self.assertEqual(settled, [-1])

    def test_pipelined_behind_a_wait(self) -> None:
        """A client that sent its next request already is not taken for gone."""
        self.listen()
        settled: list[int] = []
        client = self.connect().send(get("/wait"))
        self.until(lambda: bool(self.waiting.waits))
        client.send(get())
        time.sleep(0.05)
        self.waiting.waits[0].callback(Answer(body=b"message", settle=settled.append))
        self.assertEqual(self.run_client(client.response)[2], b"message")
        self.assertEqual(settled, [7])
        self.assertEqual(self.run_client(client.response)[2], b"ok")


class Refusals(SocketCase):
    def test_continue(self) -> None:
        """100 Continue comes before the body is sent; where the body is refused, nothing but the refusal."""
        self.listen()
        client = self.connect().send(get("/post", "Content-Length: 3", "Expect: 100-continue", method="POST"))
        self.assertEqual(self.run_client(client.response)[0], 100)
        self.assertEqual(self.run_client(client.send(b"abc").response)[0], 200)
        client = self.connect().send(get("/post", "Content-Length: 3000", "Expect: 100-continue", method="POST"))
        self.assertEqual(self.run_client(client.response)[0], 413)
        self.assertTrue(self.run_client(client.closed))

    def test_drained(self) -> None:
        """After 413 the connection goes on once the body was dropped."""
        self.listen()
        client = self.connect()
        self.run_client(client.send, post(b"x" * (4 * MIB)))
        self.assertEqual(self.run_client(client.response)[0], 413)
        self.run_client(client.send, get())
        self.assertEqual(self.run_client(client.response)[0], 200)

    def test_far_too_large(self) -> None:
        """A client that goes on sending far too much still reads its 413 before the connection ends."""
        self.listen()
        client = self.connect()

        def send_and_read() -> int:
            client.send(get("/post", "Content-Length: 100000000", method="POST"))
            status = client.response()[0]
            try:
                for _ in range(95):
                    client.send(b"x" * MIB)
            except ConnectionError:
                return status
            raise AssertionError("all of it was read")

        self.assertEqual(self.run_client(send_and_read), 413)

    def test_bad_head_with_more_behind(self) -> None:
        """A refusal arrives although the client sent more than anybody will read."""
        self.listen()
        for _ in range(20):
            client = self.connect()
            self.run_client(client.send, b"nonsense\r\n\r\n" + b"x" * 200_000)
            status, head, _ = self.run_client(client.response)
            self.assertEqual(status, 400)
            self.assertIn(b"connection: close", head)
            client.close()

    def test_flood(self) -> None:
        """A client that sends a lot behind a request that waits has most of it left in the kernel, and gets all its answers, in order."""
        self.listen()
        client = self.connect().send(get("/wait"))
        sent = deferToThread(client.send, get() * 20_000)
        self.until(lambda: any(connection.held for connection in self.site.port.connections))
        self.turn(0.1)
        self.assertEqual(self.endpoint.calls, [])
        self.assertLess(self.metrics.get_sample_value("psubd_http_received_bytes_total", {"port": "data"}), 4 * 65_536)
        self.waiting.waits[0].callback(Answer(body=b"first"))
        bodies = self.run_client(lambda: [client.response()[2] for _ in range(20_001)])
        self.assertEqual((bodies[0], bodies[1:] == [b"ok"] * 20_000), (b"first", True))
        self.wait(sent)

    def test_gone_behind_a_flood(self) -> None:
        """A client that goes away with a lot unread behind its request is noticed all the same, by FIN and by RST; nothing of it is run."""
        self.listen(write_timeout_ms=400)  # how often is looked follows from the shortest timeout
        for leave in (Client.close, Client.reset):
            self.waiting.cancelled = 0
            client = self.connect().send(get("/wait"))
            self.run_client(client.send, get() * 4000)
            self.until(lambda: any(connection.held for connection in self.site.port.connections))
            leave(client)
            self.until(lambda: self.waiting.cancelled == 1)
        self.assertEqual(self.endpoint.calls, [])

    def test_gone_unseen_behind_a_flood(self) -> None:
        """No answer is handed over to a client that has closed, although bytes of it are unread before its FIN."""
        self.listen()
        settled: list[int] = []
        client = self.connect().send(get("/wait"))
        self.run_client(client.send, get() * 4000)
        self.until(lambda: any(connection.held for connection in self.site.port.connections))
        client.close()
        time.sleep(0.05)
        self.waiting.waits[0].callback(Answer(body=b"message", settle=settled.append))
        self.assertEqual(settled, [-1])

    def test_too_many_connections(self) -> None:
        """Connections over the bound read their 503."""
        self.listen(max_connections=1)
        self.run_client(self.connect().send(get()).response)
        self.assertEqual(self.run_client(self.connect().response)[0], 503)


class Clients(SocketCase):
    def test_standard_client(self) -> None:
        """Python's own client: lengths, chunks, keep-alive, a body on GET."""
        self.listen()
        port = self.listening.getHost().port

        def talk() -> list[tuple[int, bytes]]:
            connection = http.client.HTTPConnection("127.0.0.1", port, timeout=30)
            found = []
            for method, path, body in (
                ("GET", "/get", None),
                ("POST", "/post", b"abc"),
                ("POST", "/post", iter([b"a", b"b"])),
                ("GET", "/get", b"{}"),
            ):
                connection.request(method, path, body, encode_chunked=not isinstance(body, bytes | None))
                response = connection.getresponse()
                found.append((response.status, response.read()))
            connection.close()
            return found

        self.assertEqual(self.run_client(talk), [(200, b"ok")] * 4)
        self.assertEqual([exchange.body for exchange, _ in self.endpoint.calls], [b"", b"abc", b"ab", b""])
        self.assertEqual(self.metrics.get_sample_value("psubd_http_answers_broken_total", {"port": "data"}), 0)

    def test_stream(self) -> None:
        """A stream's parts arrive as they are written, and `buffered` falls back to nothing."""
        self.listen()
        outlets: list[IOutlet] = []
        self.endpoint.answer = Answer(stream=outlets.append)
        client = self.connect().send(get())
        self.run_client(client.response)
        outlets[0].write(b"part")
        self.run_client(client.fill)
        self.assertEqual(client.buffer, b"4\r\npart\r\n")
        self.until(lambda: outlets[0].buffered == 0)
        lost: list[int] = []
        outlets[0].on_lost(lambda: lost.append(1))
        client.close()
        self.until(lambda: lost == [1])


class Drain(SocketCase):
    def test_drain(self) -> None:
        """Requests in flight are answered, also one whose bytes nobody has read yet; what is idle is closed."""
        self.listen()
        waits, idle, unread = self.connect().send(get("/wait")), self.connect(), self.connect()
        self.run_client(unread.send(get()).response)
        self.until(lambda: len(self.site.port.connections) == 3 and bool(self.waiting.waits))
        unread.send(get())
        time.sleep(0.05)  # the kernel has it; the reactor, which is this thread, has not
        drained = self.site.drain()
        self.assertTrue(self.run_client(idle.closed))
        status, head, _ = self.run_client(unread.response)
        self.assertEqual((status, b"connection: close" in head), (200, True))
        self.assertFalse(drained.called)
        self.waiting.waits[0].callback(Answer(body=b"done"))
        self.wait(drained)
        self.assertEqual(self.run_client(waits.response)[2], b"done")
        self.until(lambda: not self.site.port.connections)
