"""Polls of a group with ack=auto: what an answer holds, and what is done with it (contract, section 3)."""

from psubd.testing.daemon import together
from psubd.testing.http_contract.steps import MEBIBYTE, Stand, Steps, broken, written

WRONG_PARAMETERS = [
    ("batchSize=0", "bad_parameter"),
    ("batchSize=10001", "bad_parameter"),
    ("batchSize=x", "bad_parameter"),
    ("batchSize=1&batchSize=1", "bad_parameter"),
    ("batchSize=%C2%B2", "bad_parameter"),
    ("maxBytes=1023", "bad_parameter"),
    ("maxBytes=67108865", "bad_parameter"),
    ("timeout=-1", "bad_parameter"),
    ("timeout=60001", "bad_parameter"),
    ("timeout=1.5", "bad_parameter"),
    ("group=", "bad_parameter"),
    ("group=a/b", "bad_parameter"),
    ("group=__a", "bad_parameter"),
    ("group=a&group=a", "bad_parameter"),
    ("group=a%00", "bad_parameter"),
    ("topic=", "bad_parameter"),
    ("topic=a%20b", "bad_parameter"),
    ("ack=never", "bad_parameter"),
    ("ackTimeout=999", "bad_parameter"),
    ("ackTimeout=43200001", "bad_parameter"),
    ("partition=0", "bad_parameter"),
    ("colour=red", "bad_parameter"),
    ("x=%FF", "bad_parameter"),
]
"""Parameters that a poll may not have."""

WRONG_FORMS = [
    (b"", "bad_body"),
    (b"[]", "bad_body"),
    (b"{", "bad_body"),
    (b'{"batchSize": 0}', "bad_body"),
    (b'{"batchSize": "1"}', "bad_body"),
    (b'{"timeout": 60001}', "bad_body"),
    (b'{"colour": "red"}', "bad_body"),
    (b'{"batchSize": 1, "batchSize": 2}', "bad_body"),
    (b'{"group": ""}', "bad_parameter"),
    (b'{"topic": "a b"}', "bad_parameter"),
    (b'{"ack": "never"}', "bad_parameter"),
    (b'{"ackTimeout": 999}', "bad_body"),
    (b'{"tokens": [1]}', "bad_body"),
    (b'{"tokens": "x"}', "bad_body"),
]
"""The same as POST."""


class PollsContract(Steps):
    """Polls of one group."""

    def test_in_order_one_at_a_time(self) -> None:
        """The default is one message; every member is there but ack and epoch; the next poll gets the next one, attempt 1."""
        stand = self.stand()
        offsets = self.put(stand, b"a", b"b", b"c")
        for offset, value in zip(offsets, ("a", "b", "c"), strict=True):
            [message] = self.read(stand, "timeout=5000")
            members = {"topic", "partition", "offset", "timestamp", "key", "value", "encoding", "headers", "attempt"}
            self.assertEqual((set(message), message["offset"], message["value"], message["attempt"]), (members, offset, value, 1))
        reply = self.poll(stand)
        self.assertEqual((reply.status, reply.body), (204, b""))

    def test_204_after_the_timeout(self) -> None:
        """Without a message the answer is 204 when the time is up, and no message is lost by it."""
        stand = self.stand()
        self.assertEqual(self.poll(stand, "timeout=300").status, 204)
        self.put(stand, b"late")
        self.assertEqual(self.values(stand), ["late"])

    def test_a_publish_wakes_a_poll(self) -> None:
        """A poll that waits is answered by the next message; so is the next that waits, and each message goes to one of them."""
        stand = self.stand(3)
        polls = [self.polling(stand, "timeout=30000&batchSize=10") for _ in range(3)]
        got = []
        for number in range(3):
            self.place(stand, str(number).encode(), {"partition": str(number)})
            self.until(lambda count=number: sum(poll.done() for poll in polls) > count, "one is woken")  # type: ignore[misc]
        for poll in polls:
            reply = self.result(poll)
            self.assertEqual(reply.status, 200)
            got += [message["value"] for message in reply.json["messages"]]
        self.assertEqual(sorted(got), ["0", "1", "2"])

    def test_bounds(self) -> None:
        """An answer has at most batchSize messages and maxBytes of payload; one message always fits."""
        stand = self.stand()
        self.put_batch(stand, [{"value": letter * 600} for letter in "abcdef"])
        sizes = [len(self.read(stand, query)) for query in ("batchSize=2&timeout=5000", "batchSize=100&maxBytes=1024&timeout=5000")]
        self.assertTrue(1 <= sizes[0] <= 2 and sizes[1] == 1, sizes)
        self.drain(stand, 6 - sum(sizes))
        self.put_batch(stand, [{"value": letter * 5000} for letter in "xyz"])
        got = [[value[0] for value in self.values(stand, "batchSize=100&maxBytes=1024&timeout=5000")] for _ in range(3)]
        self.assertEqual(got, [["x"], ["y"], ["z"]])

    def test_ten_thousand_at_once(self) -> None:
        """batchSize goes to 10,000: what is at hand comes, and all of it comes once, in each partition in order."""
        stand = self.stand(2)
        self.put_batch(stand, [{"key": str(number), "value": str(number)} for number in range(3000)])
        messages: list[dict[str, int]] = []
        while len(messages) < 3000:
            more = self.read(stand, "batchSize=10000&timeout=10000")
            self.assertTrue(more, len(messages))
            messages += more
        self.assertEqual(len({message["value"] for message in messages}), 3000)
        for partition in (0, 1):
            offsets = [message["offset"] for message in messages if message["partition"] == partition]
            self.assertEqual(offsets, sorted(offsets))

    def test_post(self) -> None:
        """POST /v1/sub takes the parameters as JSON, topic and offset in either form; with an empty list of tokens it always answers 200."""
        stand = self.stand()
        self.put(stand, b"a", b"b", b"c")
        for value in "ab":
            reply = stand.sub.send("POST", "/v1/sub", {"batchSize": 1, "maxBytes": 1024, "timeout": 5000, "topic": stand.topic, "ack": "auto"})
            self.assertEqual([message["value"] for message in reply.json["messages"]], [value])
        reply = stand.sub.send("POST", "/v1/sub", {"timeout": 5000, "topic": [stand.topic, stand.topic], "tokens": []})
        self.assertEqual((reply.json["acked"], reply.json["lost"], reply.json["messages"][0]["value"]), (0, [], "c"))
        reply = stand.sub.send("POST", "/v1/sub", {"timeout": 0, "tokens": []})
        self.assertEqual((reply.status, reply.json), (200, {"messages": [], "acked": 0, "lost": []}))
        self.assertEqual(stand.sub.send("POST", "/v1/sub", {"timeout": 0}).status, 204)
        for offset in ("earliest", 0):
            reply = stand.sub.send("POST", "/v1/sub", {"topic": stand.topic, "offset": offset, "partition": 0, "batchSize": 10, "timeout": 0})
            self.assertEqual((reply.json["messages"][0]["value"], "next" in reply.json), ("a", True))

    def test_topics_asked_for(self) -> None:
        """Without topic all bound topics are read; with one, or several, only these; one that is not bound for sub is 403."""
        stand = self.stand()
        second = self.second(stand)
        self.put(stand, b"first")
        self.put(second, b"second")
        self.assertEqual(self.values(stand, f"topic={second.topic}&batchSize=10&timeout=5000"), ["second"])
        self.assertEqual(self.values(stand, f"topic={second.topic}&timeout=0"), [])
        both = f"topic={stand.topic}&topic={second.topic}"
        self.assertEqual(self.values(stand, f"{both}&batchSize=10&timeout=5000"), ["first"])
        self.put(stand, b"1")
        self.put(second, b"2")
        self.assertEqual({message["value"] for message in self.drain(stand, 2)}, {"1", "2"})
        with self.unchanged(stand):
            self.assert_refused(self.poll(stand, f"{both}&topic={self.name()}&timeout=0"), 403, "topic_not_bound")

    def second(self, stand: Stand) -> Stand:
        """One more topic of the same application."""
        topic = self.name()
        self.manage("POST", "topics", {"id": topic, "owner": stand.id}, 201)
        self.bind(stand.id, topic, pub=True, sub=True, start="earliest")
        return self.standing(stand.tenant, topic)

    def test_wrong_parameters_change_nothing(self) -> None:
        """Each parameter that is not valid is a 400 with its code, as GET and as POST: no cursor moves, no group is made."""
        stand = self.stand()
        self.put(stand, b"here")
        with self.unchanged(stand):
            for query, code in WRONG_PARAMETERS:
                self.assert_refused(self.poll(stand, query), 400, code, query)
            for body, code in WRONG_FORMS:
                reply = stand.sub.request("POST", "/v1/sub", body, {"content-type": "application/json"})
                self.assert_refused(reply, 400, code, body)
            self.assert_refused(stand.sub.request("POST", "/v1/sub?timeout=0", b"{}"), 400, "bad_parameter")
            self.assert_refused(stand.sub.request("POST", "/v1/sub", b"{}", {"content-type": "text/plain"}), 415, "unsupported_media_type")
        self.assertEqual(self.values(stand), ["here"])

    def test_clients_of_one_group_share(self) -> None:
        """Four clients of one group at the same time get each message once, each partition's offsets rising for each of them."""
        stand = self.stand(3)
        places = self.put_batch(stand, [{"value": str(number)} for number in range(600)])

        def share(_: int) -> list[tuple[int, int]]:
            client = self.data(stand.tenant.subscribe)
            got: list[tuple[int, int]] = []
            while True:
                reply = client.request("GET", "/v1/sub?batchSize=20&timeout=1000")
                assert reply.status in (200, 204), reply
                if reply.status == 204:
                    return got
                got += [(message["partition"], message["offset"]) for message in reply.json["messages"]]

        shares = together(range(4), share)
        for got in shares:
            for partition in range(3):
                offsets = [offset for at, offset in got if at == partition]
                self.assertEqual(offsets, sorted(offsets))
        self.assertEqual(sorted(place for got in shares for place in got), sorted((place["partition"], place["offset"]) for place in places))

    def test_a_broken_connection_gives_back_in_order(self) -> None:
        """What a client was not wholly handed when its connection broke comes again, all of it, in order, and the attempt does not count."""
        stand = self.stand()
        for letter in "abc":
            self.put(stand, b"\0" * (MEBIBYTE - 1) + letter.encode())  # 6 MiB of JSON: more than the system takes for a client that does not read
        before = self.metric("psubd_given_back_total")
        with self.unchanged(stand):
            line = self.connect(receive_buffer=4096)
            line.sendall(written("GET", "/v1/sub?batchSize=1&timeout=20000", list(stand.tenant.subscribe.items()), None))
            self.assertTrue(line.recv(16).startswith(b"HTTP/1.1 200"))
            broken(line)
            self.until(lambda: self.metric("psubd_given_back_total") > before, "it is given back")
        got = [(message["value"][-1], message["attempt"]) for message in self.drain(stand, 3)]
        self.assertEqual(got, [("a", 1), ("b", 1), ("c", 1)])

    def test_a_client_that_left_takes_nothing(self) -> None:
        """A poll whose client went away while it waited gets no message: the next one that waits does."""
        stand = self.stand()
        before = self.waiting()
        line = self.connect()
        line.sendall(written("GET", "/v1/sub?timeout=60000", list(stand.tenant.subscribe.items()), None))
        self.until(lambda: self.waiting() > before, "it waits")
        broken(line)
        self.until(lambda: self.waiting() == before, "it is seen to be gone")
        self.put(stand, b"kept")
        self.assertEqual(self.values(stand), ["kept"])
