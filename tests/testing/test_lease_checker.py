"""The checker of what clients saw of a group: a clean story passes, and each broken promise is named."""

from typing import Any

from twisted.trial.unittest import SynchronousTestCase

from psubd.testing.lease_checker import faults
from psubd.testing.lease_log import Broken, Delivered, Down, Letter, Log, Promises, Published, Told

TIMEOUT = 1000


class Hand:
    """Writes a log: each message is ``m<offset>`` of partition 0, each token ``<offset>/<n>`` for its n-th delivery here."""

    def __init__(self, *keys: str | None) -> None:
        self.log = Log()
        self.keys = keys
        self.log.published = [Published(f"m{offset}", key, (0, offset)) for offset, key in enumerate(keys)]
        self.times = [0] * len(keys)

    def gets(self, offset: int, at: float, attempt: int = 1, **more: Any) -> str:
        """Read at ``at``, asked 10 ms before."""
        self.times[offset] += 1
        token = f"{offset}/{self.times[offset]}"
        made = Delivered(1, at - 10, at, f"m{offset}", self.keys[offset], (0, offset), attempt, token, 1, TIMEOUT)
        self.log.delivered.append(made._replace(**more))
        return token

    def says(self, verb: Any, token: str, at: float, outcome: Any = "took", ms: float = 0) -> None:
        """Answered at ``at``, asked 10 ms before."""
        self.log.told.append(Told(verb, token, at - 10, at, outcome, ms))

    def does(self, offset: int, at: float, attempt: int = 1, **more: Any) -> None:
        """Gets it, and acks it 20 ms later."""
        self.says("ack", self.gets(offset, at, attempt, **more), at + 20)

    def dies(self, at: float, killed: bool = True) -> None:
        self.log.downs.append(Down(at, at + 500, killed))


class CheckerCase(SynchronousTestCase):
    def assert_clean(self, hand: Hand, **promises: Any) -> None:
        self.assertEqual(faults(hand.log, Promises(**promises)), [])

    def assert_caught(self, hand: Hand, rule: str, words: str, **promises: Any) -> None:
        """Each fault is of that rule, and one at least says these words."""
        found = faults(hand.log, Promises(**promises))
        self.assertEqual({fault.partition(":")[0] for fault in found}, {rule}, found)
        self.assertTrue(any(words in fault for fault in found), found)


class DoneTests(CheckerCase):
    def test_clean(self) -> None:
        """Each message read once and acked: nothing to say."""
        hand = Hand("a", "b", None)
        for offset in range(3):
            hand.does(offset, 100.0 + offset)
        self.assert_clean(hand)
        self.assert_clean(hand, ordered=True)

    def test_never_done(self) -> None:
        """A message that was published and never acked, or never read, is lost."""
        hand = Hand("a", "b")
        hand.gets(0, 100)
        self.assert_caught(hand, "end", "m1 at (0, 1) was never done: it never came")

    def test_unanswered_publish(self) -> None:
        """A publish without an answer may be stored or not; stored, it is a message as any other."""
        hand = Hand("a")
        hand.log.published += [Published("ghost", None, None), Published("other", None, None)]
        hand.does(0, 100)
        hand.log.delivered.append(hand.log.delivered[0]._replace(id="other", key=None, place=(0, 1), token="other"))
        hand.says("ack", "other", 130)
        self.assert_clean(hand)

    def test_unanswered_ack(self) -> None:
        """An ack without an answer does not count as one that was answered 200."""
        hand = Hand("a")
        hand.says("ack", hand.gets(0, 100), 120, "unknown")
        self.assert_caught(hand, "end", "was never done")

    def test_comes_again(self) -> None:
        """A message that comes after its ack was answered, without any kill, is caught."""
        hand = Hand("a")
        hand.does(0, 100)
        hand.does(0, 2000, 2)
        self.assert_caught(hand, "done", "(0, 0) was done at 120")

    def test_kill_within_the_interval(self) -> None:
        """A kill within the commit interval of the answer may repeat it."""
        hand = Hand("a")
        hand.does(0, 100)
        hand.dies(600)
        hand.does(0, 2000, epoch=2)
        self.assert_clean(hand, allowance_ms=0)

    def test_kill_after_the_interval(self) -> None:
        """A kill after it may not: the ack was to be in the storage by then."""
        hand = Hand("a")
        hand.does(0, 100)
        hand.dies(700)
        hand.does(0, 2000, epoch=2)
        self.assert_caught(hand, "done", "came again", allowance_ms=0)

    def test_kill_before_the_ack(self) -> None:
        """A kill before the ack was sent is no excuse."""
        hand = Hand("a")
        hand.dies(0)
        hand.does(0, 600, epoch=2)
        hand.does(0, 2000, 2, epoch=2)
        self.assert_caught(hand, "done", "came again")

    def test_stop_repeats_nothing(self) -> None:
        """Nor is a stop on SIGTERM, however soon after the answer."""
        hand = Hand("a")
        hand.does(0, 100)
        hand.dies(130, killed=False)
        hand.does(0, 2000, 2, epoch=2)
        self.assert_caught(hand, "done", "came again")

    def test_dead_comes_again(self) -> None:
        """What was nacked dead does not come again either."""
        hand = Hand("a")
        hand.says("dead", hand.gets(0, 100), 120)
        hand.log.letters.append(Letter("m0", (0, 0), 1, "nack"))
        self.assert_clean(hand)
        hand.gets(0, 2000, 2)
        self.assert_caught(hand, "done", "came again")

    def test_auto(self) -> None:
        """In auto mode a message that came whole is done."""
        hand = Hand("a", "b")
        hand.gets(0, 100, token=None)
        hand.gets(1, 100, token=None)
        self.assert_clean(hand)
        hand.gets(0, 300, 2, token=None)
        self.assert_caught(hand, "done", "came again")


class IdentityTests(CheckerCase):
    def test_never_published(self) -> None:
        """A message that nobody published is caught."""
        hand = Hand("a")
        hand.does(0, 100, id="strange")
        self.assertIn("identity: strange at (0, 0) was never published", faults(hand.log, Promises()))

    def test_other_place(self) -> None:
        """So is one that is read at another place than its publish was answered."""
        hand = Hand("a", "b")
        hand.does(0, 100)
        hand.does(1, 100, id="m0", key="a")
        self.assertIn("identity: m0 is at (0, 0) and was read at (0, 1)", faults(hand.log, Promises()))

    def test_other_key(self) -> None:
        """And one with another key."""
        hand = Hand("a")
        hand.does(0, 100, key="b")
        self.assert_caught(hand, "identity", "read with b")

    def test_two_at_one_place(self) -> None:
        """And two messages at one place."""
        hand = Hand("a")
        hand.does(0, 100)
        hand.log.published.append(Published("m9", None, (0, 0)))
        self.assert_caught(hand, "identity", "(0, 0) holds ['m0', 'm9']")


class OverlapTests(CheckerCase):
    def test_lapse(self) -> None:
        """A message whose lease lapsed goes to somebody else."""
        hand = Hand("a")
        hand.gets(0, 100)
        hand.does(0, 100 + TIMEOUT, 2, client=2)
        self.assert_clean(hand)

    def test_too_early(self) -> None:
        """Before the lease has lapsed, it may not."""
        hand = Hand("a")
        hand.gets(0, 100)
        hand.does(0, 80 + TIMEOUT, 2, client=2)
        self.assert_caught(hand, "overlap", "(0, 0) was out twice")

    def test_both_stand(self) -> None:
        """Two answers whose requests were under way at once: whichever was granted first, both stood."""
        hand = Hand("a")
        hand.gets(0, 100)
        hand.does(0, 105, 2, client=2)
        self.assert_caught(hand, "overlap", "(0, 0) was out twice")

    def test_kill_ends_leases(self) -> None:
        """A kill ends the leases of its process."""
        hand = Hand("a")
        hand.gets(0, 100)
        hand.dies(200)
        hand.does(0, 800, epoch=2)
        self.assert_clean(hand)

    def test_stop_does_not(self) -> None:
        """A stop does not."""
        hand = Hand("a")
        hand.gets(0, 100)
        hand.dies(200, killed=False)
        hand.does(0, 800, 2, epoch=2)
        self.assert_caught(hand, "overlap", "(0, 0) was out twice")

    def test_extended(self) -> None:
        """An extend that took lengthens the lease."""
        hand = Hand("a")
        token = hand.gets(0, 100)
        hand.says("extend", token, 1000, ms=1500)
        hand.says("ack", token, 2400)
        self.assert_clean(hand)
        hand.gets(0, 2000, 2)
        self.assertIn("overlap", faults(hand.log, Promises())[0])

    def test_shortened(self) -> None:
        """And may shorten it; one without an answer may have."""
        for outcome in ("took", "unknown"):
            hand = Hand("a")
            hand.says("extend", hand.gets(0, 100), 120, outcome, ms=300)
            hand.does(0, 500, 2)
            self.assert_clean(hand)

    def test_nack(self) -> None:
        """What was nacked comes again at once, or after the delay that was asked for, or after the binding's backoff, not before."""
        hand = Hand("a")
        hand.says("nack", hand.gets(0, 100), 150)
        hand.does(0, 250, 2)
        self.assert_clean(hand)
        self.assert_caught(hand, "overlap", "out twice", backoff_min=200, backoff_max=1000)
        hand.log.told[0] = hand.log.told[0]._replace(ms=300)
        self.assert_caught(hand, "overlap", "out twice")

    def test_backoff_doubles(self) -> None:
        """The backoff doubles with each attempt, up to its maximum."""
        hand = Hand("a")
        hand.says("nack", hand.gets(0, 100), 150)
        hand.says("nack", hand.gets(0, 250, 2), 300)
        hand.does(0, 450, 3)
        self.assert_clean(hand, backoff_min=100, backoff_max=150)
        self.assert_caught(hand, "overlap", "out twice", backoff_min=100, backoff_max=1000)

    def test_delay_and_kill(self) -> None:
        """A kill may take the delay away."""
        hand = Hand("a")
        hand.says("nack", hand.gets(0, 100), 150, ms=5000)
        hand.dies(200)
        hand.does(0, 800, epoch=2)
        self.assert_clean(hand)

    def test_cut_answer(self) -> None:
        """What was read of an answer that was dropped may have gone back at once."""
        hand = Hand("a")
        hand.gets(0, 100, whole=False)
        hand.log.broken.append(Broken(1, 90, 100, TIMEOUT))
        hand.does(0, 120)
        self.assert_clean(hand)

    def test_read_late(self) -> None:
        """A lease that lasted no longer than its request was under way is not known to have stood."""
        hand = Hand("a")
        hand.gets(0, 3000, asked=100)
        hand.does(0, 3001, 2)
        self.assert_clean(hand)


class WordsTests(CheckerCase):
    def test_lost_while_it_stands(self) -> None:
        """A 409 for a lease that stands is caught, whatever was said."""
        for verb in ("ack", "nack", "extend"):
            hand = Hand("a")
            token = hand.gets(0, 100)
            hand.says(verb, token, 200, "lost")
            hand.does(0, 90 + TIMEOUT, 2)
            self.assert_caught(hand, "words", f"{verb} at 190 was answered 409 although")

    def test_ack_after_the_lapse(self) -> None:
        """A lapsed lease acks its message as long as that was not leased again."""
        hand = Hand("a")
        token = hand.gets(0, 100)
        hand.says("ack", token, 2000)
        self.assert_clean(hand)
        hand.log.told.clear()
        hand.says("ack", token, 2000, "lost")
        hand.does(0, 2100, 2)
        self.assert_caught(hand, "words", "was answered 409 although nobody had")

    def test_broken_while_it_stood(self) -> None:
        """An answer that broke while the lease still stood cannot have held the message."""
        hand = Hand("a")
        token = hand.gets(0, 100)
        hand.log.broken.append(Broken(2, 200, 400, TIMEOUT))
        hand.says("ack", token, 2000, "lost")
        hand.does(0, 2100, 2)
        self.assert_caught(hand, "words", "was answered 409 although nobody had")

    def test_ack_after_a_kill(self) -> None:
        """So does one that went with its process."""
        hand = Hand("a")
        token = hand.gets(0, 100)
        hand.dies(200)
        hand.says("ack", token, 800)
        self.assert_clean(hand)

    def test_leased_again(self) -> None:
        """Leased again, or in an answer that broke, it is lost; taking it then is caught."""
        hand = Hand("a")
        token = hand.gets(0, 100)
        other = hand.gets(0, 1500, 2)
        hand.says("ack", token, 1600, "lost")
        hand.says("ack", other, 1700)
        self.assert_clean(hand)
        hand.log.told[0] = hand.log.told[0]._replace(outcome="took")
        self.assertTrue(any("had been leased again" in fault for fault in faults(hand.log, Promises())))
        broken = Hand("a")
        token = broken.gets(0, 100)
        broken.log.broken.append(Broken(2, 1200, 1400, TIMEOUT))
        broken.says("ack", token, 1600, "lost")
        broken.does(0, 2500, 3)
        self.assert_clean(broken)

    def test_nack_and_extend_of_what_ended(self) -> None:
        """Only a lease that stands can be nacked or extended: not one that lapsed, nor one that went with its process."""
        for verb in ("nack", "extend"):
            lapsed = Hand("a")
            lapsed.says(verb, lapsed.gets(0, 100), 1200)
            lapsed.does(0, 1300, 2)
            self.assert_caught(lapsed, "words", f"{verb} at 1190 took although")
            gone = Hand("a")
            token = gone.gets(0, 100)
            gone.dies(200)
            gone.says(verb, token, 800)
            gone.does(0, 900, epoch=2)
            self.assert_caught(gone, "words", f"{verb} at 790 took although")

    def test_nack_repeated(self) -> None:
        """A nack that was not answered may be said again, after the lease's time too."""
        hand = Hand("a")
        token = hand.gets(0, 100)
        hand.says("nack", token, 200, "unknown")
        hand.says("nack", token, 1500)
        hand.does(0, 1600, 2)
        self.assert_clean(hand)

    def test_nack_after_a_stop(self) -> None:
        """A stop takes nothing from a lease, and may leave it the time that it lasted."""
        hand = Hand("a")
        token = hand.gets(0, 100)
        hand.dies(200, killed=False)
        hand.says("nack", token, 1500)
        hand.does(0, 1600, 2, epoch=2)
        self.assert_clean(hand)


class CountTests(CheckerCase):
    def test_attempts(self) -> None:
        """Attempts begin at 1, rise with each lease, and are never above what was leased before."""
        hand = Hand("a")
        hand.says("nack", hand.gets(0, 100), 120)
        hand.does(0, 200, 2)
        self.assert_clean(hand)
        for wrong, words in ((0, "attempt 0"), (1, "attempt 1, then 1"), (3, "attempt 3 of inf after at most 1 others")):
            hand.log.delivered[1] = hand.log.delivered[1]._replace(attempt=wrong)
            self.assert_caught(hand, "attempts", words)

    def test_attempts_after_a_kill(self) -> None:
        """A kill may set them back."""
        hand = Hand("a")
        hand.says("nack", hand.gets(0, 100), 120)
        hand.dies(150)
        hand.does(0, 800, epoch=2)
        self.assert_clean(hand)

    def test_most_attempts(self) -> None:
        """None is above max_attempts."""
        hand = Hand("a")
        hand.says("nack", hand.gets(0, 100), 120)
        hand.does(0, 200, 2)
        self.assert_caught(hand, "attempts", "attempt 2 of 1", max_attempts=1)

    def test_epochs(self) -> None:
        """An epoch rises with each process, and never falls."""
        hand = Hand("a", "b")
        hand.does(0, 100, epoch=5)
        hand.dies(200)
        hand.does(1, 800, epoch=5)
        self.assert_caught(hand, "epochs", "5 after 5")
        fallen = Hand("a", "b")
        fallen.does(0, 100, epoch=5)
        fallen.does(1, 200, epoch=4)
        self.assert_caught(fallen, "epochs", "4 after 5")


class OrderTests(CheckerCase):
    def test_first_times(self) -> None:
        """Messages of a partition are leased for the first time in offset order."""
        hand = Hand("a", "b")
        hand.does(1, 100)
        hand.does(0, 200)
        self.assert_caught(hand, "first_times", "(0, 0) came for the first time after (0, 1)")

    def test_first_times_after_a_broken_answer(self) -> None:
        """What may have been in a broken answer until just now is no first time; long after it is."""
        for broken_at, clean in ((95, True), (-3000, False)):
            hand = Hand("a", "b")
            hand.log.broken.append(Broken(2, broken_at - 10, broken_at, TIMEOUT))
            hand.does(1, 100)
            hand.does(0, 200)
            self.assertEqual(not faults(hand.log, Promises()), clean)

    def test_key_out_twice(self) -> None:
        """ordered: two messages of a key at once are caught, in one answer or in two; of two keys they are not."""
        for later in (100, 110, 200):
            for key, clean in (("a", False), ("b", True)):
                hand = Hand("a", key)
                first, second = hand.gets(0, 100), hand.gets(1, later)
                hand.says("ack", first, 300)
                hand.says("ack", second, 300)
                found = faults(hand.log, Promises(ordered=True))
                self.assertEqual(not found, clean, (later, key))
                if not clean:
                    self.assertTrue(any("two of a key were out" in fault for fault in found), found)

    def test_no_key_is_a_key(self) -> None:
        """ordered: messages without key are one lane of their partition."""
        hand = Hand(None, None)
        first, second = hand.gets(0, 100), hand.gets(1, 110)
        hand.says("ack", first, 300)
        hand.says("ack", second, 300)
        self.assertTrue(faults(hand.log, Promises(ordered=True)))

    def test_key_waits(self) -> None:
        """ordered: while a message waits after a nack, its key waits."""
        hand = Hand("a", "a")
        hand.says("nack", hand.gets(0, 100), 120, ms=500)
        hand.says("ack", hand.gets(1, 200), 220)
        hand.does(0, 900, 2)
        self.assertTrue(any("one was to wait" in fault for fault in faults(hand.log, Promises(ordered=True))))
        self.assert_clean(hand)

    def test_backoff_of_what_is_done(self) -> None:
        """ordered: what was acked lets its key go on at once, whatever the backoff is."""
        hand = Hand("a", "a")
        hand.does(0, 100)
        hand.does(1, 200)
        self.assert_clean(hand, ordered=True, backoff_min=1000, backoff_max=1000)

    def test_earlier_not_done(self) -> None:
        """ordered: a message that comes while an earlier one of its key was never done, or is done later, is caught."""
        hand = Hand("a", "a")
        hand.does(1, 100)
        hand.does(0, 105, asked=80)
        self.assertTrue(any("came before an earlier one of its key was done" in fault for fault in faults(hand.log, Promises(ordered=True))))

    def test_passed(self) -> None:
        """ordered: what was passed within one process's life does not come after it; after a kill it may."""
        hand = Hand("a", "a")
        hand.does(0, 100)
        hand.says("nack", hand.gets(1, 200), 220)
        hand.dies(250)
        hand.does(0, 800, epoch=2)
        hand.does(1, 900, epoch=2)
        self.assert_clean(hand, ordered=True)
        hand.does(0, 1000, 2, epoch=2)
        self.assertTrue(any("(0, 1) came before (0, 0)" in fault for fault in faults(hand.log, Promises(ordered=True))))

    def test_dead_lets_pass(self) -> None:
        """ordered: a dead message lets its key go on."""
        hand = Hand("a", "a")
        hand.says("dead", hand.gets(0, 100), 120)
        hand.log.letters.append(Letter("m0", (0, 0), 1, "nack"))
        hand.does(1, 200)
        self.assert_clean(hand, ordered=True)

    def test_auto(self) -> None:
        """ordered, auto mode: one answer may hold several of a key, in order."""
        for order, clean in (((0, 1), True), ((1, 0), False)):
            hand = Hand("a", "a")
            for offset in order:
                hand.gets(offset, 100, token=None)
            self.assertEqual(not faults(hand.log, Promises(ordered=True)), clean)


class LetterTests(CheckerCase):
    def dead(self, times: int) -> Hand:
        hand = Hand("a")
        for attempt in range(1, times + 1):
            hand.says("nack", hand.gets(0, 100.0 * attempt, attempt), 100.0 * attempt + 20)
        hand.log.letters.append(Letter("m0", (0, 0), times, "max_attempts"))
        return hand

    def test_after_the_attempts(self) -> None:
        """A message that was tried as often as it may be lies in the dead-letter topic, and is not lost."""
        self.assert_clean(self.dead(3), max_attempts=3)

    def test_too_early(self) -> None:
        """One that was not is caught."""
        self.assert_caught(self.dead(2), "letters", "is dead after 2 attempts of 3", max_attempts=3)
        lying = self.dead(2)
        lying.log.letters[0] = lying.log.letters[0]._replace(attempts=3)
        self.assert_caught(lying, "letters", "is dead after 3 attempts of 3", max_attempts=3)

    def test_never_nacked(self) -> None:
        """So is one that nobody nacked dead."""
        hand = Hand("a")
        hand.does(0, 100)
        hand.log.letters.append(Letter("m0", (0, 0), 1, "nack"))
        self.assert_caught(hand, "letters", "was never nacked dead")

    def test_twice(self) -> None:
        """A letter twice follows a kill."""
        hand = self.dead(3)
        hand.log.letters *= 2
        self.assert_caught(hand, "letters", "has 2 letters after 0 kills", max_attempts=3)
        hand.dies(5000)
        self.assert_clean(hand, max_attempts=3)

    def test_of_another(self) -> None:
        """A letter that names another message's place is caught."""
        hand = self.dead(3)
        hand.log.letters[0] = hand.log.letters[0]._replace(id="m7")
        self.assert_caught(hand, "letters", "where another message is", max_attempts=3)


class NodesTests(CheckerCase):
    """Many nodes: epochs say which lease is of which owner."""

    def moves(self, hand: Hand, at: float, up: float, killed: bool = True, epoch: int = 2, **more: Any) -> None:
        hand.log.downs.append(Down(at, up, killed, epoch, **more))

    def test_took_over(self) -> None:
        """What was leased when the owner died comes again from the next one, also to a poll that was asked before."""
        hand = Hand("a", "b")
        hand.gets(0, 100.0)
        self.moves(hand, 150.0, 400.0)
        hand.does(0, 450.0, asked=90.0, epoch=2)
        hand.does(1, 460.0, epoch=2)
        self.assert_clean(hand)

    def test_handed_over(self) -> None:
        """A lease goes on where the owner handed over."""
        hand = Hand("a")
        hand.gets(0, 100.0)
        self.moves(hand, 150.0, 400.0, killed=False)
        hand.does(0, 450.0, attempt=2, epoch=2)
        self.assert_caught(hand, "overlap", "was out twice")

    def test_stale(self) -> None:
        """A former owner's answer that comes when the next one has long claimed the slot."""
        hand = Hand("a", "b")
        hand.does(0, 100.0)
        self.moves(hand, 150.0, 400.0)
        hand.does(1, 1500.0)
        self.assert_caught(hand, "stale", "which was over since 2 stood at 400")

    def test_buffered(self) -> None:
        """One that was in the client's buffers is none."""
        hand = Hand("a")
        self.moves(hand, 150.0, 400.0)
        hand.does(0, 420.0)
        self.assert_clean(hand)

    def test_done_before(self) -> None:
        """What was done long before the owner died does not come again; what was done just before may."""
        for done_at, rule in ((100.0, "done"), (1900.0, None)):
            hand = Hand("a")
            hand.does(0, done_at)
            self.moves(hand, 2000.0, 2400.0)
            hand.does(0, 2500.0, epoch=2)
            if rule:
                self.assert_caught(hand, rule, "came again", commit_interval_ms=500, allowance_ms=500)
            else:
                self.assert_clean(hand)

    def test_cut_off(self) -> None:
        """An owner that is cut off may answer until its lease ends, and forget what it answered last."""
        hand = Hand("a")
        hand.does(0, 1500.0)
        self.moves(hand, 100.0, 2000.0, gone=2000.0)
        hand.does(0, 2100.0, epoch=2)
        self.assert_clean(hand)

    def test_two_owners(self) -> None:
        """Epochs tell which lease came first, whatever the times say: what the second owner had is not the first one's to give."""
        hand = Hand("a")
        self.moves(hand, 150.0, 400.0)
        hand.does(0, 450.0, epoch=2)
        hand.does(0, 480.0, asked=140.0)
        self.assert_clean(hand)  # in the former owner's buffers: it was granted before

    def test_auto_edge(self) -> None:
        """In auto mode a node that dies between handing over and telling so makes the message come again; nothing else does."""
        for edges, rule in (([(105.0, 105.0)], None), ([], "done")):
            hand = Hand("a")
            hand.gets(0, 100.0, token=None, epoch=None)
            hand.log.edges = edges
            hand.gets(0, 500.0, token=None, epoch=None)
            if rule:
                self.assert_caught(hand, rule, "came again")
            else:
                self.assert_clean(hand)

    def test_unsure(self) -> None:
        """Where nobody can tell whether the owner handed over, its leases may have gone and may stand."""
        hand = Hand("a", "b")
        token = hand.gets(0, 100.0)
        other = hand.gets(1, 101.0)
        self.moves(hand, 150.0, 400.0, sure=False)
        hand.says("extend", token, 500.0, ms=TIMEOUT)
        hand.says("ack", token, 520.0)
        hand.says("nack", other, 530.0, "lost")
        hand.does(1, 600.0, epoch=2)
        self.assert_clean(hand)

    def test_taken_back_for_a_move(self) -> None:
        """What was about to go out when the group moved may come after what was leased later; not long after the move."""
        for moved_at, rule in ((100.0, None), (-5000.0, "first_times")):
            hand = Hand("a", "b")
            self.moves(hand, moved_at, moved_at + 50, killed=False)
            hand.does(1, 200.0, epoch=2)
            hand.does(0, 260.0, epoch=2)
            if rule:
                self.assert_caught(hand, rule, "for the first time after")
            else:
                self.assert_clean(hand)
