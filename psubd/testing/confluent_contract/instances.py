"""Instances: made, subscribed, assigned, moved, left (table 1a)."""

from typing import Any

from psubd.testing.confluent_contract.steps import V1, V2, ConfluentSteps, Instance, places


class InstancesContract(ConfluentSteps):
    def test_create(self) -> None:
        """Without a body or with one; the answer says its id and where it is; both names for an id."""
        stand = self.stand()
        caller = self.caller(stand)
        base = f"http://127.0.0.1:{self.data_port}"
        for body, type in ((None, None), ({}, V2), ({"name": "n", "x": {}}, V2), ({"id": "i", "name": "other"}, "application/json")):
            reply = caller.ask("POST", "/consumers/g", body, type)
            id = reply.json["instance_id"]
            self.says(reply, {"instance_id": id, "base_uri": f"{base}/consumers/g/instances/{id}"})
            self.assertEqual(id, "i" if body and "id" in body else "n" if body and "name" in body else id)
            self.done(Instance(caller, "g", id).leave())

    def test_a_name_that_is_taken(self) -> None:
        """40902; in another group, and of another application, it is free."""
        stand, other = self.stand(), self.stand()
        self.make(stand, "a")
        self.told(self.caller(stand).ask("POST", "/consumers/g", {"name": "a"}), 409, 40902)
        self.make(stand, "a", "h")
        self.make(other, "a")

    def test_settings_that_are_none(self) -> None:
        """42204, 42205 for schemas, 40001 for fetch.min.bytes, and no instance is made."""
        caller = self.caller(self.stand())
        wrong: list[tuple[int, int, dict[str, Any]]] = [
            (422, 42204, {"format": "xml"}),
            (422, 42204, {"auto.offset.reset": "middle"}),
            (422, 42204, {"auto.commit.enable": "perhaps"}),
            (422, 42204, {"consumer.request.timeout.ms": "soon"}),
            (422, 42204, {"name": "a/b"}),
            *((422, 42205, {"format": format}) for format in ("avro", "jsonschema", "protobuf")),
            *((400, 40001, {"fetch.min.bytes": number}) for number in (-2, 10_000_001, "x")),
        ]
        for status, number, members in wrong:
            self.told(caller.ask("POST", "/consumers/g", {"name": "a", **members}), status, number)
        self.told(Instance(caller, "g", "a").leave(), 404, 40403)
        for body in (b"{", b"[]"):
            self.told(caller.ask("POST", "/consumers/g", body), 400, 400)
        self.told(caller.ask("POST", "/consumers/a%20b", {}), 400, 400)

    def test_one_that_is_not_there(self) -> None:
        """40403 on each of its routes, also after it left, and for another application."""
        stand, other = self.stand(), self.stand()
        left = self.reader(stand, "a")
        self.done(left.leave())
        for instance in (left, Instance(self.caller(other), "g", "a"), Instance(self.caller(stand), "h", "a")):
            self.told(instance.leave(), 404, 40403)
            self.told(instance.subscribe(stand.topic), 404, 40403)
            for method, tail in (("GET", "/subscription"), ("DELETE", "/subscription"), ("GET", "/assignments"), ("GET", "/records")):
                self.told(instance.ask(method, tail), 404, 40403)
            self.told(instance.assign(stand.topic, 0), 404, 40403)
            self.told(instance.ask("POST", "/positions", {"offsets": [{**places(stand.topic, 0)[0], "offset": 0}]}), 404, 40403)
            for tail in ("/positions/beginning", "/positions/end"):
                self.told(instance.ask("POST", tail, {"partitions": places(stand.topic, 0)}), 404, 40403)
            self.told(instance.commit(), 404, 40403)
            self.told(instance.committed(stand.topic, 0), 404, 40403)
            self.told(instance.ask("GET", f"/topics/{stand.topic}"), 404, 40403)

    def test_subscription(self) -> None:
        """Set, replaced, shown, ended."""
        stand = self.stand(2)
        instance = self.make(stand)
        self.says(instance.ask("GET", "/subscription"), {"topics": []})
        self.done(instance.subscribe(stand.topic))
        self.says(instance.ask("GET", "/subscription"), {"topics": [stand.topic]})
        self.done(instance.subscribe(stand.topic, stand.topic))
        self.says(instance.ask("GET", "/subscription"), {"topics": [stand.topic]})
        self.done(instance.ask("DELETE", "/subscription"))
        self.says(instance.ask("GET", "/subscription"), {"topics": []})
        self.told(instance.read(), 409, 40903)

    def test_a_pattern(self) -> None:
        """Of bound topics, those that it matches whole; also one that is bound later."""
        stand = self.stand()
        instance = self.make(stand, format="json")
        self.done(instance.ask("POST", "/subscription", {"topic_pattern": f"{stand.topic}(-more)?"}))
        self.says(instance.ask("GET", "/subscription"), {"topics": [stand.topic]})
        self.store(stand, 1)
        self.assertEqual(self.got(instance), [1])
        self.manage("POST", "topics", {"id": f"{stand.topic}-more", "owner": stand.id}, 201)
        self.bind(stand.id, f"{stand.topic}-more", pub=True, sub=True, start="earliest")
        more = self.standing(stand.tenant, f"{stand.topic}-more")
        self.store(more, 2)
        self.until(lambda: 2 in self.got(instance), "what is in the topic that was bound later")
        for pattern in ("(", "a" * 257):
            self.told(instance.ask("POST", "/subscription", {"topic_pattern": pattern}), 400, 400)

    def test_what_is_no_subscription(self) -> None:
        """Topics and a pattern at once are 40903, neither is 422, what is not bound 40401; it reads what it read."""
        stand, other = self.stand(), self.stand()
        instance = self.reader(stand)
        self.told(instance.ask("POST", "/subscription", {"topics": [stand.topic], "topic_pattern": ".*"}), 409, 40903)
        self.told(instance.ask("POST", "/subscription", {}), 422, 422)
        self.told(instance.ask("POST", "/subscription", b""), 422, 422)
        self.told(instance.ask("POST", "/subscription", b"{"), 400, 400)
        self.told(instance.ask("POST", "/subscription", {"topics": stand.topic}), 400, 400)
        for name in (other.topic, self.name()):
            self.told(instance.subscribe(stand.topic, name), 404, 40401)
        self.says(instance.ask("GET", "/subscription"), {"topics": [stand.topic]})

    def test_assignments(self) -> None:
        """By hand: those alone; by subscription: its share; the two exclude each other (40903)."""
        stand = self.stand(3)
        for partition in range(3):
            self.store(stand, partition, partition=partition)
        instance = self.make(stand, format="json")
        self.done(instance.assign(stand.topic, 0, 2))
        self.says(instance.ask("GET", "/assignments"), {"partitions": places(stand.topic, 0, 2)})
        self.assertEqual(sorted(self.all_of(2, instance)), [0, 2])
        self.told(instance.subscribe(stand.topic), 409, 40903)
        self.told(instance.assign(stand.topic, 3), 404, 40402)
        self.told(instance.assign(self.name(), 0), 404, 40401)
        self.told(instance.ask("POST", "/assignments", {}), 422, 422)
        self.told(instance.ask("POST", "/assignments", {"partitions": [{"topic": stand.topic}]}), 400, 400)
        self.done(instance.ask("DELETE", "/subscription"))
        self.done(instance.subscribe(stand.topic))
        self.told(instance.assign(stand.topic, 0), 409, 40903)
        self.says(instance.ask("GET", "/assignments"), {"partitions": places(stand.topic, 0, 1, 2)})

    def test_positions(self) -> None:
        """To offsets, to times, to either end; the group's place stays; all or none."""
        stand = self.stand()
        for number in range(3):
            self.send(stand, b"%d" % number, {"timestamp": str(1_600_000_000_000 + 1000 * number)})
        instance, (at,) = self.reader(stand), places(stand.topic, 0)
        self.assertEqual(self.got(instance), [0, 1, 2])
        moves: list[tuple[str, dict[str, Any], list[int]]] = [
            ("", {"offsets": [{**at, "offset": 1, "metadata": "x"}]}, [1, 2]),
            ("", {"timestamps": [{**at, "timestamp": "2020-09-13T12:26:41.500Z"}]}, [2]),
            ("", {"timestamps": [{**at, "timestamp": 1_600_000_001}]}, [1, 2]),
            ("", {"timestamps": [{**at, "timestamp": 1_600_000_001_000}], "offsets": []}, [1, 2]),
            ("/beginning", {"partitions": [at]}, [0, 1, 2]),
        ]
        for tail, body, expected in moves:
            self.done(instance.ask("POST", f"/positions{tail}", body))
            self.assertEqual(self.got(instance), expected, body)
        self.done(instance.ask("POST", "/positions/beginning", {"partitions": [at]}))
        self.done(instance.ask("POST", "/positions/end", {"partitions": [at]}))
        self.assertEqual(self.got(instance, "timeout=0"), [])
        self.assertEqual(self.stands(instance, stand.topic), 0)

    def test_positions_that_are_none(self) -> None:
        """40402 for a partition that is not there, 40903 for one that it does not have, 40401 for a topic; 400 past the end; 422 for nothing."""
        stand = self.stand(2)
        instance = self.make(stand)
        self.done(instance.assign(stand.topic, 0))
        for partition, offset, status, number in ((2, 0, 404, 40402), (1, 0, 409, 40903), (0, 1, 400, 400)):
            body = {"offsets": [{"topic": stand.topic, "partition": partition, "offset": offset}]}
            self.told(instance.ask("POST", "/positions", body), status, number)
        for tail in ("/beginning", "/end"):
            self.told(instance.ask("POST", f"/positions{tail}", {"partitions": places(stand.topic, 1)}), 409, 40903)
            self.told(instance.ask("POST", f"/positions{tail}", {"partitions": places(self.name(), 0)}), 404, 40401)
            self.told(instance.ask("POST", f"/positions{tail}", {}), 422, 422)
        self.told(instance.ask("POST", "/positions", {}), 422, 422)
        self.told(instance.ask("POST", "/positions", {"timestamps": [{**places(stand.topic, 0)[0], "timestamp": "soon"}]}), 400, 400)

    def test_where_a_group_begins(self) -> None:
        """latest: misses nothing that is published after the subscription; earliest: at the log's start; none: 40903 where there is no place."""
        stand = self.stand()
        self.store(stand, "before")
        late = self.reader(stand, group="late", auto_offset_reset="latest")
        self.store(stand, "after")
        self.assertEqual(self.got(late), ["after"])
        self.assertEqual(self.got(self.reader(stand, group="early", auto_offset_reset="smallest")), ["before", "after"])
        self.told(self.make(stand, group="nowhere", auto_offset_reset="none").subscribe(stand.topic), 409, 40903)

    def test_the_name_of_a_group(self) -> None:
        """The path's group is the cursor of ?group=, whatever it is called; the application's own group, without a name, stays as it was."""
        stand = self.stand()
        self.store(stand, 1, 2)
        for group in ("g", stand.id):
            instance = self.reader(stand, group=group)
            self.assertEqual(self.got(instance), [1, 2])
            (at,) = places(stand.topic, 0)
            self.assertEqual(instance.commit({**at, "offset": 0}).status, 200)
            self.done(instance.leave())
            self.assertEqual(self.values(stand, f"group={group}&batchSize=10&timeout=5000"), ["2"])
        self.assertEqual(self.values(stand, "batchSize=10&timeout=5000"), ["1", "2"])

    def test_the_versions_of_a_request(self) -> None:
        """An answer is of the version that the request speaks."""
        caller = self.caller(self.stand())
        self.assertEqual(caller.ask("POST", "/consumers/g", {}, V1).headers["content-type"], V1)
        self.assertEqual(caller.ask("POST", "/consumers/g", None, accept=V1).headers["content-type"], V1)
        self.assertEqual(caller.ask("POST", "/consumers/g", None).headers["content-type"], V2)
        self.told(caller.ask("POST", "/consumers/g", {"format": "x"}, V1), 422, 42204, V1)
