"""Failures on their way to another node."""

from twisted.trial.unittest import SynchronousTestCase

from psubd import errors
from psubd.errors import BadCredentials, Internal, LeaseLost, MethodNotAllowed, OwnershipInDoubt, PeerLost, PsubdError, RateLimited
from psubd.peers.faults import Told, decode_fault, encode_fault, msgspec


class Faults(SynchronousTestCase):
    def test_every_class(self) -> None:
        """Each class arrives as itself, with detail, members, headers and its own attributes."""
        classes = [cls for cls in vars(errors).values() if isinstance(cls, type) and issubclass(cls, PsubdError)]
        self.assertGreater(len(classes), 30)
        for cls in classes:
            sent = cls("a detail", ("GET",), record=5) if cls is MethodNotAllowed else cls("a detail", record=5)
            came = decode_fault(encode_fault(sent))
            self.assertIs(type(came), cls)
            self.assertEqual((came.document(), dict(came.headers), vars(came)), (sent.document(), dict(sent.headers), vars(sent)))

    def test_own(self) -> None:
        """What a constructor takes beside the detail arrives too."""
        limited = decode_fault(encode_fault(RateLimited("slow", 7, limit=5, remaining=1, reset=9)))
        assert isinstance(limited, RateLimited)
        self.assertEqual((limited.retry_after, limited.limit, limited.remaining, limited.reset), (7, 5, 1, 9))
        self.assertEqual(decode_fault(encode_fault(BadCredentials("no", "Bearer"))).headers, {"www-authenticate": "Bearer"})
        self.assertEqual(decode_fault(encode_fault(LeaseLost("lost", lost=["a", "b"], acked=3))).members, {"lost": ["a", "b"], "acked": 3})

    def test_newer(self) -> None:
        """A class that this version does not know arrives as the nearest above it that it knows; unknown attributes are left out."""
        came = decode_fault(msgspec.msgpack.encode(Told(["FencedOut", "OwnershipInDoubt", "PsubdError"], "d", {"retry_after": 3, "fence": 1}, {})))
        assert isinstance(came, OwnershipInDoubt)
        self.assertEqual((type(came), came.retry_after, came.members), (OwnershipInDoubt, 3, {}))

        class Deeper(PeerLost):
            pass

        self.assertIs(type(decode_fault(encode_fault(Deeper("d")))), PeerLost)

    def test_unreadable(self) -> None:
        """What cannot be read is a failure all the same."""
        for body in (b"", b"\xff", b"x" * 100, msgspec.msgpack.encode([["PsubdError"], 5, {}, {}]), encode_fault(PeerLost("d"))[:-1]):
            self.assertIs(type(decode_fault(body)), Internal)
        for names in ([], ["ClassVar"], ["ConfigError"], ["Mapping", "__doc__"]):
            self.assertIs(type(decode_fault(msgspec.msgpack.encode(Told(names, "d", {}, {})))), Internal)
