"""Who gets what: instances of a group among themselves, and beside /v1/sub."""

from psubd.testing.confluent_contract.steps import ConfluentSteps, Instance, places


class SharingContract(ConfluentSteps):
    def parts(self, instance: Instance) -> set[int]:
        """The partitions that it has."""
        reply = instance.ask("GET", "/assignments")
        self.assertEqual(reply.status, 200, reply)
        return {place["partition"] for place in reply.json["partitions"]}

    def test_partitions_are_shared_out(self) -> None:
        """Between two instances of a group, evenly; each record comes to one of them; who leaves gives its partitions back."""
        stand = self.stand(4)
        a, b = self.reader(stand, "a"), self.reader(stand, "b")
        self.assertEqual((len(self.parts(a)), len(self.parts(b)), self.parts(a) | self.parts(b)), (2, 2, {0, 1, 2, 3}))
        for number in range(20):
            self.store(stand, number, partition=number % 4)
        self.assertEqual(sorted(self.all_of(20, a, b)), list(range(20)))
        self.done(b.leave())
        self.assertEqual(self.parts(a), {0, 1, 2, 3})

    def test_what_was_read_is_not_given_to_another(self) -> None:
        """A partition of which something was read goes to who comes when that is committed, and from there on."""
        stand = self.stand(2)
        for partition in range(2):
            self.store(stand, f"{partition}-0", partition=partition)
        a = self.reader(stand, "a")
        self.assertEqual(sorted(self.all_of(2, a)), ["0-0", "1-0"])
        b = self.reader(stand, "b")
        self.assertEqual((self.parts(b), self.got(b, "timeout=0")), (set(), []))
        self.assertEqual(a.commit().status, 200)
        self.assertEqual((len(self.parts(a)), len(self.parts(b))), (1, 1))
        for partition in range(2):
            self.store(stand, f"{partition}-1", partition=partition)
        self.assertEqual(sorted(self.all_of(2, a, b)), ["0-1", "1-1"])

    def test_a_partition_that_went_to_another(self) -> None:
        """After ack_timeout_ms it goes though something was read: that comes again there; the former holder's commit is told 40903."""
        stand = self.stand(2, ack_timeout_ms=1000)
        for partition in range(2):
            self.store(stand, partition, partition=partition)
        a = self.reader(stand, "a")
        self.all_of(2, a)
        b = self.reader(stand, "b")
        self.until(lambda: bool(self.parts(b)), "the partition goes to who waits for it")
        (moved,) = self.parts(b)
        self.assertEqual(self.got(b), [moved])
        self.told(a.commit(), 409, 40903)
        self.assertEqual((self.stands(a, stand.topic, 1 - moved), self.stands(a, stand.topic, moved)), (1, 0))
        self.told(a.commit({"topic": stand.topic, "partition": moved, "offset": 0}), 409, 40903)
        self.assertEqual((a.commit().status, b.commit().status, self.stands(b, stand.topic, moved)), (200, 200, 1))

    def test_beside_the_sub_endpoint(self) -> None:
        """While an instance has a partition, polls of the group get nothing of it; what it did not commit they get when it left."""
        stand = self.stand()
        instance = self.reader(stand)
        self.store(stand, 0, 1)
        self.assertEqual(self.values(stand, "group=g&batchSize=10&timeout=0"), [])
        self.assertEqual(self.got(instance), [0, 1])
        self.assertEqual(self.values(stand, "group=g&batchSize=10&timeout=0"), [])
        (at,) = places(stand.topic, 0)
        self.assertEqual(instance.commit({**at, "offset": 0}).status, 200)
        self.done(instance.leave())
        self.assertEqual(self.values(stand, "group=g&batchSize=10&timeout=10000"), ["1"])

    def test_what_the_sub_endpoint_has_out(self) -> None:
        """Stays its client's: the instance stops before it, skips it once it is done, and gets it once it came back."""
        stand = self.stand()
        self.done(self.reader(stand).leave())
        self.store(stand, 0, 1, 2)
        leased = self.read(stand, "group=g&batchSize=2&timeout=5000&ack=explicit")
        self.assertEqual(len(leased), 2)
        instance = self.reader(stand)
        self.assertEqual(self.got(instance, "timeout=0"), [])
        self.assertEqual(stand.sub.send("POST", "/v1/ack", {"tokens": [leased[0]["ack"]]}).status, 200)
        self.assertEqual(self.got(instance, "timeout=0"), [])
        self.assertEqual(stand.sub.send("POST", "/v1/nack", {"tokens": [leased[1]["ack"]]}).status, 200)
        self.assertEqual(self.all_of(2, instance), [1, 2])

    def test_each_record_once_between_both(self) -> None:
        """An instance that comes and goes beside polls of its group: every record comes, none to both."""
        stand = self.stand(2)
        found: list[int] = []
        self.done(self.reader(stand).leave())
        for turn in range(4):
            instance = self.reader(stand)
            for number in range(6):
                self.store(stand, 10 * turn + number, partition=number % 2)
            found += self.some(3, instance, query="timeout=200&max_bytes=2")
            self.assertEqual(instance.commit().status, 200)
            self.done(instance.leave())
            while len(found) < 6 * turn + 6:
                values = self.values(stand, "group=g&batchSize=100&timeout=10000")
                self.assertTrue(values, found)
                found += [int(value) for value in values]
        self.assertEqual(sorted(found), [10 * turn + number for turn in range(4) for number in range(6)])

    def test_partitions_that_are_added(self) -> None:
        """Are shared out too, and read from their first record."""
        stand = self.stand(1)
        a, b = self.reader(stand, "a"), self.reader(stand, "b")
        self.manage("PATCH", f"topics/{stand.topic}", {"partitions": 2})
        self.until(lambda: len(self.caller(stand).ask("GET", f"/topics/{stand.topic}/partitions").json) == 2, "the partition is there")
        self.store(stand, "new", partition=1)
        self.assertEqual(self.some(1, a, b), ["new"])
        self.assertEqual((len(self.parts(a)), len(self.parts(b))), (1, 1))

    def test_a_group_that_is_moved(self) -> None:
        """By its tenant, while an instance reads: it reads on from there."""
        stand = self.stand()
        self.store(stand, 0, 1, 2)
        instance = self.reader(stand)
        self.assertEqual(self.got(instance), [0, 1, 2])
        self.assertEqual(instance.commit().status, 200)
        moved = stand.sub.send("PUT", "/v1/groups/g/offsets", {"topic": stand.topic, "to": {"offsets": {"0": 1}}})
        self.assertEqual(moved.status, 200, moved)
        self.assertEqual(self.some(2, instance), [1, 2])

    def test_a_group_that_is_deleted(self) -> None:
        """Takes its instances along; one that is made again begins anew."""
        stand = self.stand()
        self.store(stand, 0)
        instance = self.reader(stand, "a")
        self.assertEqual(self.got(instance), [0])
        self.assertEqual(instance.commit().status, 200)
        self.assertEqual(stand.sub.request("DELETE", "/v1/groups/g").status, 204)
        self.told(instance.read(), 404, 40403)
        self.assertEqual(self.got(self.reader(stand, "a")), [0])

    def test_an_application_that_is_deleted(self) -> None:
        """A read that waits ends, since nothing is bound any more; nobody asks for it then: 40101."""
        stand = self.stand()
        instance = self.reader(stand, "a", consumer_request_timeout_ms=30_000)
        asked = self.aside(instance.read)
        self.manage("DELETE", f"applications/{stand.id}?force=true")
        self.told(self.result(asked), 404, 40401)
        self.told(self.twin(stand, instance).read(), 401, 40101)
