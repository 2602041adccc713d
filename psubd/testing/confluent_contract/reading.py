"""What instances give: formats, bounds, broken connections, one id for two clients (table 1a, and where the original loses data)."""

from typing import Any

from psubd.testing.confluent_contract.steps import V2, ConfluentSteps, Instance, b64, embedded, everything
from psubd.testing.http_contract.steps import MEBIBYTE, Stand, broken, heard, written


class ReadingContract(ConfluentSteps):
    def test_binary(self) -> None:
        """The default format; timestamp, and headers where there are any, beside Confluent's five members."""
        stand = self.stand()
        self.send(stand, b"\xff", {"key": "k", "header.h": "1", "timestamp": "1600000000000"})
        self.send(stand, b"", {"tombstone": "true", "key": "k", "timestamp": "1600000000001"})
        instance = self.make(stand)
        self.done(instance.subscribe(stand.topic))
        common = {"topic": stand.topic, "partition": 0, "key": b64(b"k")}
        first = {**common, "value": b64(b"\xff"), "offset": 0, "timestamp": 1_600_000_000_000}
        reply = instance.read()
        self.assertEqual([record["value"] for record in reply.json], [first["value"], None])
        self.assertIn({"key": "h", "value": b64(b"1")}, reply.json[0]["headers"])
        self.assertEqual({**reply.json[0], "headers": []}, {**first, "headers": []})
        self.assertEqual(reply.json[1]["timestamp"], 1_600_000_000_001)
        self.assertEqual(reply.headers["content-type"], embedded("binary"))
        self.says(instance.read("timeout=0"), [], embedded("binary"))

    def test_json_and_what_is_none(self) -> None:
        """JSON as it stands; other text as a string, other bytes in base64: the batch goes on."""
        stand = self.stand()
        for value in (b'{"n": 1.10}', b"plain", b"\xff\x00", b"7", b"", b'{"open"'):
            self.send(stand, value)
        self.send(stand, b"", {"tombstone": "true"})
        self.assertEqual(self.got(self.reader(stand)), [{"n": 1.1}, "plain", {"base64": "/wA="}, 7, "", '{"open"', None])

    def test_text(self) -> None:
        """Strimzi's: UTF-8 as strings, other bytes in base64."""
        stand = self.stand()
        for value in ("\u00e9".encode(), b"7", b"\xff"):
            self.send(stand, value)
        instance = self.reader(stand, format="text")
        reply = instance.read()
        self.assertEqual([record["value"] for record in reply.json], ["\u00e9", "7", {"base64": "/w=="}])
        self.assertEqual(reply.headers["content-type"], embedded("text"))

    def test_accept(self) -> None:
        """What names no format gets the instance's; another format is 40601, what is none of ours 406; nothing is read then."""
        stand = self.stand()
        self.store(stand, 1)
        instance = self.reader(stand)
        for accept in (embedded("binary"), embedded("avro")):
            self.told(instance.read(accept=accept), 406, 40601)
        self.told(instance.read(accept="text/html"), 406, 406)
        for accept, type in (
            (embedded("json"), embedded("json")),
            (V2, embedded("json")),
            ("*/*", embedded("json")),
            ("application/json", "application/json"),
        ):
            self.assertEqual(self.got(instance), [1])
            self.says(instance.read("timeout=0", accept), [], type)
            self.done(instance.ask("POST", "/positions/beginning", {"partitions": [{"topic": stand.topic, "partition": 0}]}))

    def test_a_read_waits(self) -> None:
        """Until there is a record; not longer than the instance's timeout, whatever the query says."""
        stand = self.stand()
        instance = self.reader(stand, consumer_request_timeout_ms="30000")
        asked = self.aside(lambda: self.got(instance, "timeout=30000"))
        self.store(stand, 1)
        self.assertEqual(self.result(asked), [1])
        short = self.reader(stand, group="short", consumer_request_timeout_ms=50)
        self.assertEqual(self.got(short), [1])
        self.assertEqual(self.got(short, "timeout=60000"), [])

    def test_so_many_bytes(self) -> None:
        """fetch.min.bytes: a read waits for that much payload, and gives what there is when its time is over."""
        stand = self.stand()
        instance = self.reader(stand, fetch_min_bytes="4", consumer_request_timeout_ms="30000")
        asked = self.aside(lambda: self.got(instance, ""))
        self.store(stand, 12)
        self.store(stand, 34)
        self.assertEqual(self.result(asked), [12, 34])
        self.store(stand, 5)
        self.assertEqual(self.got(instance, "timeout=100"), [5])

    def test_bounds(self) -> None:
        """max_bytes bounds an answer; a record that is larger comes alone, and those behind it come too."""
        stand = self.stand()
        values = ["a" * 10, "b" * 10, "c" * 5000, "d" * 10]
        self.store(stand, *values)
        instance = self.reader(stand)
        self.assertEqual([self.got(instance, "max_bytes=1000") for _ in range(3)], [values[:2], values[2:3], values[3:]])
        for query in ("max_bytes=x", "timeout=x", "max_bytes=-2"):
            self.told(instance.read(query), 400, 400)

    def test_many_bytes(self) -> None:
        """An answer has at most 8 MiB of payload unless max_bytes asks for more; each record comes once."""
        stand = self.stand()
        for number in range(12):
            self.send(stand, b"%02d" % number + b"x" * (MEBIBYTE - 100))
        instance = self.make(stand, format="text")
        self.done(instance.subscribe(stand.topic))
        first = self.got(instance, "timeout=5000")
        self.assertLessEqual(len(first), 8)
        rest = self.some(12 - len(first), instance, query=f"max_bytes={64 * MEBIBYTE}")
        self.assertEqual([value[:2] for value in first + rest], [f"{number:02}" for number in range(12)])

    # --- what was not wholly written

    def asking(self, stand: Stand, instance: Instance, receive_buffer: int | None = None) -> Any:
        """A read on a bare connection, sent."""
        line = self.connect(receive_buffer)
        line.sendall(written("GET", f"{instance.path}/records?timeout=30000&max_bytes={64 * MEBIBYTE}", list(everything(stand.tenant).items())))
        return line

    def test_a_connection_that_breaks_while_it_waits(self) -> None:
        """The read is withdrawn: what comes then is given to the next, and only to that."""
        stand = self.stand()
        instance = self.reader(stand, consumer_request_timeout_ms="30000")
        line = self.asking(stand, instance)
        broken(line)
        self.store(stand, 1)
        self.assertEqual(self.got(instance, "timeout=10000"), [1])
        self.assertEqual(instance.commit().status, 200)
        self.assertEqual(self.stands(instance, stand.topic), 1)

    def half_written(self, stand: Stand) -> tuple[Instance, Any]:
        """24 records of 1 MiB, which begin with their number, and an instance whose answer with the first of them is too large to be written while
        its client takes no more of it."""
        for number in range(24):
            self.send(stand, b"%02d" % number + b"x" * (MEBIBYTE - 100))
        instance = self.make(stand, format="text", consumer_request_timeout_ms="30000")
        self.done(instance.subscribe(stand.topic))
        line = self.asking(stand, instance, 4096)
        self.assertEqual(line.recv(12), b"HTTP/1.1 200")
        return instance, line

    def test_an_answer_that_breaks(self) -> None:
        """Half of it was written: all of its records come again, and a commit without a body covers none of them."""
        stand = self.stand()
        instance, line = self.half_written(stand)
        broken(line)
        self.assertEqual(instance.commit().status, 200)
        self.assertEqual(self.stands(instance, stand.topic), 0)
        found = self.all_of(24, instance)
        self.assertEqual([value[:2] for value in found], [f"{number:02}" for number in range(24)])
        self.assertEqual(instance.commit().status, 200)
        self.assertEqual(self.stands(instance, stand.topic), 24)

    def test_two_clients_of_one_id(self) -> None:
        """Share its records: each comes once, to one of them, and none is missed."""
        stand = self.stand(2)
        instance = self.reader(stand)
        twins = [instance, self.twin(stand, instance)]
        for number in range(20):
            self.store(stand, number, partition=number % 2)
        asked = [self.aside(lambda one=one: [self.got(one, "timeout=500&max_bytes=4") for _ in range(12)]) for one in twins]  # type: ignore[misc]
        found = [value for one in asked for part in self.result(one) for value in part]
        found += self.all_of(0, instance)
        self.assertEqual(sorted(found), list(range(20)))

    def test_a_second_read_waits_for_the_first(self) -> None:
        """While the first answer is being written to its client, the second waits, and is empty when its time is over."""
        stand = self.stand()
        instance, line = self.half_written(stand)
        self.assertEqual(self.got(instance, "timeout=300"), [])
        broken(line)
        self.assertEqual(self.got(instance, "timeout=10000")[0][:2], "00")

    def test_a_head_request(self) -> None:
        """Nothing is read by HEAD: 405."""
        stand = self.stand()
        self.store(stand, 1)
        instance = self.reader(stand)
        with self.connect() as line:
            line.sendall(written("HEAD", f"{instance.path}/records", list(everything(stand.tenant).items())))
            self.assertEqual(heard(line, "HEAD").status, 405)
        self.assertEqual(self.got(instance), [1])

    def test_a_binding_that_ends(self) -> None:
        """A read that waits ends 40401, and one that comes later."""
        stand = self.stand()
        instance = self.reader(stand, consumer_request_timeout_ms="30000")
        asked = self.aside(lambda: instance.read(""))
        self.assertFalse(asked.done())
        self.bind(stand.id, stand.topic, pub=True, sub=False)
        self.told(self.result(asked), 404, 40401)
        self.told(self.twin(stand, instance).read(), 404, 40401)
