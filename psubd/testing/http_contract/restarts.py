"""Leases over the end of the process (contract, section 3), for a storage that outlives it."""

from collections.abc import Callable

from psubd.testing.http_contract.lease_steps import HOUR, LeaseSteps


class RestartsContract(LeaseSteps):
    """What a restart on SIGTERM keeps, and what a kill leaves.

    :ivar restart: the host's: end the daemon, by SIGTERM or (``kill=True``) SIGKILL, and start it on the same state.
    """

    restart: Callable[..., None]

    def test_restart(self) -> None:
        """Leases go on over a restart on SIGTERM: nobody else gets their messages, their tokens ack, nack and extend; attempts and delays stay."""
        stand = self.stand(max_in_flight=5)
        self.put(stand, b"acked", b"nacked", b"extended", b"delayed", b"again")
        leased = {message["value"]: message for message in self.lease(stand, 5)}
        self.nack(stand, leased["delayed"], delay=HOUR)
        self.nack(stand, leased["again"])
        self.restart()
        stand = self.standing(stand.tenant, stand.topic)
        [again] = self.lease(stand, 1)
        self.assertEqual((again["value"], again["attempt"]), ("again", 2))
        self.assertGreaterEqual(again["epoch"], leased["again"]["epoch"])
        self.assertEqual(self.out(stand), 4)
        self.ack(stand, leased["acked"])
        self.nack(stand, leased["nacked"])
        self.taken(stand, "extend", [leased["extended"]], ackTimeout=HOUR)
        [nacked] = self.lease(stand, 1)
        self.assertEqual((nacked["value"], nacked["attempt"]), ("nacked", 2))
        self.assert_lost(stand, "ack", [leased["nacked"], leased["again"]])
        self.ack(stand, nacked, again, leased["extended"], leased["delayed"])
        self.all_done(stand)

    def test_kill(self) -> None:
        """A process that dies takes its leases with it, those of an earlier one too: what was not acked comes again, what was acked and is in the
        storage does not; until then the former tokens still ack, and neither nack nor extend."""
        stand = self.stand()
        self.put(stand, b"a", b"b", b"c", b"d")
        a, b, c, d = self.lease(stand, 4)
        self.ack(stand, b, a)
        self.restart()
        stand = self.standing(stand.tenant, stand.topic)
        self.taken(stand, "extend", [c, d], ackTimeout=HOUR)
        self.restart(kill=True)
        stand = self.standing(stand.tenant, stand.topic)
        self.assert_lost(stand, "nack", [d])
        self.assert_lost(stand, "extend", [d], ackTimeout=HOUR)
        self.ack(stand, c, a)
        [again] = self.lease(stand, 1)
        self.assertEqual(again["value"], "d")
        self.assertGreater(again["epoch"], d["epoch"])
        self.assert_lost(stand, "ack", [d, again], [d])
        self.all_done(stand)
