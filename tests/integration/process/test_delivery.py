"""The promises of delivery over HTTP, through everything that goes wrong: eight subscribers a topic with habits of their own, the daemon killed again
and again, and a checker that reads what all of them saw."""

import time
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import Any

from psubd.testing.daemon import Daemon, Tenant, bind, make_topic, register
from psubd.testing.lease_checker import faults
from psubd.testing.lease_log import Log, Promises
from psubd.testing.readers import HABITS, Habit, Load
from psubd.testing.traffic import Ends, Traffic
from tests.integration.process.case import LONG, ProcessCase

MESSAGES = 10_000 if LONG else 1_000
"""Of each topic, of two."""
KILLS = 20 if LONG else 5
STOPS = 6 if LONG else 2
ATTEMPTS = 4
BACKOFF = {"min": 50, "max": 200}
KEYS = 40
SHOWN = 12

UNHURRIED = tuple(habit._replace(timeout=habit.timeout + 1500, holds=0.1, forgets=0.002) for habit in HABITS)
"""For restarts: leases that outlast them."""


class DeliveryStories:
    """One run over two topics at once: ``plain``, unordered, and ``strict``, ordered, with dead letters. Mixed into a case that has ``a_daemon``."""

    shop, suffix = "shop", ""

    def open_shop(self, daemon: Daemon, messages: int = MESSAGES) -> tuple[Tenant, Sequence[Load], dict[str, Promises]]:
        """The application, what is published, and what its bindings promise by topic."""
        plain, strict, graves = (f"{name}{self.suffix}" for name in ("plain", "strict", "graves"))
        manager = daemon.manager()
        tenant = register(manager, self.shop)
        for name in (plain, strict, graves):
            make_topic(manager, name, self.shop, partitions=3)
        bind(manager, self.shop, plain, pub=True, sub=True, start="earliest")
        bind(manager, self.shop, graves, sub=True, start="earliest")
        ordering = {"ordered": True, "max_attempts": ATTEMPTS, "dead_letter": graves, "backoff": BACKOFF}
        bind(manager, self.shop, strict, pub=True, sub=True, start="earliest", **ordering)
        manager.close()
        loads = (Load(plain, messages, KEYS), Load(strict, messages, KEYS, graves, poison=0.01))
        ordered = Promises(ordered=True, max_attempts=ATTEMPTS, backoff_min=BACKOFF["min"], backoff_max=BACKOFF["max"])
        return tenant, loads, {plain: Promises(), strict: ordered}

    def story(self, daemon: Daemon, ends: Ends, seed: int, messages: int = MESSAGES, habits: Sequence[Habit] = HABITS) -> None:
        """Run it, and hold what was seen against the promises."""
        daemon.start()
        tenant, loads, promises = self.open_shop(daemon, messages)
        begun = time.monotonic()
        with ThreadPoolExecutor(1) as thread:
            traffic = thread.submit(Traffic(daemon, tenant, loads, ends, seed, habits=habits).run).result()
        lasted = time.monotonic() - begun
        print(f"\n{ends.times} x {ends.by}, seed {seed}: {lasted:.1f} s; {dict(traffic.stage.figures)}")
        found = []
        for (group, topic), log in traffic.logs.items():
            print(f"{group} {topic}: {told(log)}")
            found += [f"{group} {topic} {fault}" for fault in faults(log, promises[topic])]
        test: Any = self
        broken = daemon.output().partition("Traceback")[2][:2000]
        test.assertEqual(traffic.stage.strange[:3], [], broken)
        test.assertFalse(found, f"{len(found)} faults:\n" + "\n".join(found[:SHOWN]))
        test.assertFalse(any(traffic.lag.values()), traffic.lag)
        test.assertEqual(len(traffic.downs), ends.times)
        happened = {name: traffic.stage.figures[name] for name in ("answers dropped", "nack took", "extend took")}
        test.assertTrue(all(happened.values()), f"the story was too tame: {happened}")
        daemon.stop()
        test.assertNotIn("Traceback", daemon.output())


def told(log: Log) -> str:
    """A log in figures."""
    again = len(log.delivered) - len({made.place for made in log.delivered})
    answered = sum(made.place is not None for made in log.published)
    words = {outcome: sum(word.outcome == outcome for word in log.told) for outcome in ("took", "lost", "unknown")}
    return (
        f"{len(log.published)} published, {answered} answered; {len(log.delivered)} delivered, {again} of them again; "
        f"words {words}; {len(log.broken)} broken answers, {len(log.letters)} letters"
    )


class DeliveryTests(DeliveryStories, ProcessCase):
    def test_kills(self) -> None:
        """kill -9 five times under random acks, nacks, lapses and dropped connections: every message is done or dead in the end; what was done comes
        again only after a kill within the commit interval; no two leases of a message stand at once; what is ordered comes in order."""
        self.story(self.daemon(), Ends(KILLS), 1)

    def test_stops(self) -> None:
        """The same with SIGTERM: leases, tokens, attempts and delays go on in the next process, and nothing that was done comes again."""
        self.story(self.daemon(), Ends(STOPS, "stop"), 2, MESSAGES // 2, UNHURRIED)
