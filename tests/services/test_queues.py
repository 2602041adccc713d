"""The queue of the polls that wait."""

import random

from twisted.trial.unittest import SynchronousTestCase

from psubd.services.queues import Queue


class Waiting:
    """What the queue sees of a poll; counts how often it is looked at."""

    looks = 0

    def __init__(self, *topics, since=0):
        self.topics = dict.fromkeys(topics)
        self.age = (since, 0)

    @property
    def open(self):
        Waiting.looks += 1
        return self.topics


class QueueTests(SynchronousTestCase):
    def setUp(self):
        self.queue = Queue()

    def add(self, *topics, since=0):
        poll = Waiting(*topics, since=since)
        self.queue.add(poll)
        return poll

    def test_oldest(self):
        """The oldest of those that may read one of the topics, whatever others may read."""
        a, ab, b = self.add("a"), self.add("a", "b"), self.add("b")
        self.assertIs(self.queue.oldest({"a": 1, "c": 1}.keys()), a)
        self.assertIs(self.queue.oldest({"b"}), ab)
        self.assertIsNone(self.queue.oldest({"c"}))
        self.queue.drop(ab)
        self.assertIs(self.queue.oldest({"b"}), b)
        self.queue.drop(ab)
        self.assertEqual((len(self.queue), list(self.queue)), (2, [a, b]))
        self.assertEqual((self.queue.topics(), self.queue.wants("b"), self.queue.wants("c")), ({"a", "b"}, True, False))

    def test_moved(self):
        """A poll that may read other topics than before keeps its age."""
        first, second, third = self.add("a"), self.add("b"), self.add("b")
        first.topics = {"b": None}
        self.queue.moved(first)
        self.queue.moved(first)
        self.assertFalse(self.queue.wants("a"))
        for poll in (first, second, third):
            self.assertIs(self.queue.oldest({"b"}), poll)
            self.queue.drop(poll)
        self.queue.moved(first)
        self.assertEqual(len(self.queue), 0)

    def test_by_age(self):
        """One that has waited elsewhere already goes before those that came here earlier and have waited less; of two that have waited equally long
        the first goes first."""
        late, later = self.add("a", since=5), self.add("b", since=7)
        old, as_old = self.add("a", "b", since=3), self.add("a", since=5)
        self.assertEqual(list(self.queue), [old, late, as_old, later])
        for poll in (old, late, as_old, later):
            self.assertIs(self.queue.oldest({"a", "b"}), poll)
            self.queue.drop(poll)

    def test_as_a_plain_list(self):
        """Over random histories it finds what a walk over all of them finds."""
        dice = random.Random(5)
        plain = []
        for number in range(3000):
            roll = dice.random()
            if roll < 0.4:
                plain.append(self.add(*dice.sample("abcd", dice.randint(0, 3)), since=number - dice.choice((0, 0, 20))))
                plain.sort(key=lambda poll: poll.age)
            elif plain and roll < 0.6:
                self.queue.drop(plain.pop(dice.randrange(len(plain))))
            elif plain and roll < 0.8:
                poll = dice.choice(plain)
                poll.topics = dict.fromkeys(dice.sample("abcd", dice.randint(0, 3)))
                self.queue.moved(poll)
            wanted = set(dice.sample("abcd", 2))
            self.assertIs(self.queue.oldest(wanted), next((poll for poll in plain if wanted & poll.topics.keys()), None))
        self.assertEqual(list(self.queue), plain)

    def test_ten_thousand(self):
        """Finding the oldest, and taking it out, looks at nobody else, however many wait."""
        for number in range(10_000):
            self.add("a", *("b" if number % 2 else ()))
        Waiting.looks = 0
        for _ in range(100):
            self.queue.drop(self.queue.oldest({"b"}))
        self.assertEqual(Waiting.looks, 0)
