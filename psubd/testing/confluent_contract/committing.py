"""What instances commit (table 1a)."""

from psubd.testing.confluent_contract.steps import ConfluentSteps, places


class CommittingContract(ConfluentSteps):
    def test_what_was_written(self) -> None:
        """Without a body: what was wholly written, with or without async=true; 200 and an empty list; in place when it is answered."""
        stand = self.stand()
        self.store(stand, 0, 1, 2)
        instance = self.reader(stand)
        self.says(instance.commit(), [])
        self.assertEqual(self.stands(instance, stand.topic), 0)
        self.assertEqual(len(self.got(instance, "timeout=1000&max_bytes=1")), 1)
        self.says(instance.ask("POST", "/offsets?async=true"), [])
        self.assertEqual(self.stands(instance, stand.topic), 1)
        self.got(instance)
        self.says(instance.ask("POST", "/offsets?async=false"), [])
        self.assertEqual(self.stands(instance, stand.topic), 3)

    def test_what_the_client_names(self) -> None:
        """One more than it names is stored, with its metadata; below what is done it takes the group back."""
        stand = self.stand(2)
        self.store(stand, 0, 1, 2)
        instance = self.reader(stand)
        first, second = places(stand.topic, 0, 1)
        self.says(instance.commit({**first, "offset": 1, "metadata": "m \u00e9"}), [])
        reply = instance.committed(stand.topic, 1, 0)
        expected = [{**second, "offset": 0, "metadata": ""}, {**first, "offset": 2, "metadata": "m \u00e9"}]
        self.says(reply, {"offsets": expected})
        self.says(instance.commit({**first, "offset": 0}), [])
        self.says(instance.committed(stand.topic, 0), {"offsets": [{**first, "offset": 1, "metadata": ""}]})
        self.assertEqual(self.got(instance), [0, 1, 2])
        self.done(instance.leave())
        self.assertEqual(self.got(self.reader(stand)), [1, 2])

    def test_what_is_no_commit(self) -> None:
        """All or none: 400 past the end, 40402, 40401, 400 for metadata that is too long and for what is no offset, 422 for nothing."""
        stand, other = self.stand(), self.stand()
        self.store(stand, 0)
        instance = self.reader(stand)
        (at,) = places(stand.topic, 0)
        good = {**at, "offset": 0}
        self.told(instance.commit(good, {**at, "offset": 1}), 400, 400)
        self.told(instance.commit(good, {"topic": stand.topic, "partition": 1, "offset": 0}), 404, 40402)
        self.told(instance.commit(good, {"topic": other.topic, "partition": 0, "offset": 0}), 404, 40401)
        self.told(instance.commit({**good, "metadata": "x" * 257}), 400, 400)
        self.told(instance.commit({**at, "offset": "x"}), 400, 400)
        self.told(instance.ask("POST", "/offsets", {}), 422, 422)
        self.told(instance.ask("POST", "/offsets", b"{"), 400, 400)
        self.assertEqual(self.stands(instance, stand.topic), 0)

    def test_places(self) -> None:
        """In the JSON body of a GET; without one 40402; a partition where the group never was is left out."""
        stand = self.stand()
        instance = self.make(stand)
        self.says(instance.committed(stand.topic, 0), {"offsets": []})
        self.told(instance.ask("GET", "/offsets"), 404, 40402)
        self.told(instance.committed(stand.topic, 1), 404, 40402)
        self.told(instance.committed(self.name(), 0), 404, 40401)
        self.told(instance.ask("GET", "/offsets", {}), 422, 422)

    def test_without_a_commit(self) -> None:
        """What was read comes again to who comes after; the position is the instance's own."""
        stand = self.stand()
        self.store(stand, 0, 1)
        instance = self.reader(stand)
        self.assertEqual((self.got(instance), self.got(instance, "timeout=0")), ([0, 1], []))
        self.done(instance.leave())
        self.assertEqual(self.got(self.reader(stand)), [0, 1])

    def test_auto_commit(self) -> None:
        """The default of the second version: what one read gave is done with the next, and when it leaves."""
        stand = self.stand()
        self.store(stand, 0, 1)
        caller = self.caller(stand)
        self.assertEqual(caller.ask("POST", "/consumers/g", {"name": "auto", "format": "json", "auto.offset.reset": "earliest"}).status, 200)
        instance = self.reader(stand, auto_commit_enable=True)
        self.done(instance.subscribe(stand.topic))
        self.assertEqual(self.got(instance, "max_bytes=1"), [0])
        self.assertEqual(self.stands(instance, stand.topic), 0)
        self.assertEqual(self.got(instance), [1])
        self.assertEqual(self.stands(instance, stand.topic), 1)
        self.done(instance.leave())
        self.assertEqual(self.stands(self.reader(stand), stand.topic), 2)
