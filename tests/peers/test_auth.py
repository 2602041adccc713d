"""Who is at the other end."""

from collections.abc import Callable

from twisted.trial.unittest import SynchronousTestCase

from psubd.errors import RegistryUnavailable
from psubd.peers import auth
from psubd.peers.auth import Answering, Dialling, Refused, key_bytes, proof
from psubd.peers.frames import Frame, Kind, Parser, encode

SECRET = b"s" * 32


def frame_in(data: bytes) -> Frame:
    parser = Parser(auth.BYTES_BEFORE)
    parser.feed(data)
    frame = parser.next()
    assert frame is not None
    assert not parser.pending
    return frame


def pair(
    dialler: str = "a", listener: str = "b", asked: str | None = None, secrets: tuple[bytes, bytes] = (SECRET, SECRET)
) -> tuple[Dialling, Answering]:
    return Dialling(lambda: secrets[0], dialler, asked or listener), Answering(lambda: secrets[1], listener)


class Handshake(SynchronousTestCase):
    def refuse(self, step: Callable[[Frame], object], data: bytes, why: str) -> None:
        self.assertIn(why, str(self.assertRaises(Refused, step, frame_in(data))))

    def test_both(self) -> None:
        """Both know the other when each has proven itself, and not before; the listener says nothing of its own proof before `welcome`."""
        dialler, listener = pair()
        self.assertEqual(listener.begin(), b"")
        challenge = listener.received(frame_in(dialler.begin()))
        proven = dialler.received(frame_in(challenge))
        self.assertEqual((dialler.member, listener.member), (None, None))
        self.assertEqual(listener.received(frame_in(proven)), b"")
        self.assertEqual((dialler.member, listener.member), (None, "a"))
        self.assertEqual(dialler.received(frame_in(listener.welcome())), b"")
        self.assertEqual(dialler.member, "b")
        self.assertEqual(dialler.welcome(), b"")

    def test_wrong_key(self) -> None:
        """Who does not know the secret is not let in, and a listener that does not know it is not believed."""
        dialler, listener = pair(secrets=(b"x" * 32, SECRET))
        proven = dialler.received(frame_in(listener.received(frame_in(dialler.begin()))))
        self.refuse(listener.received, proven, "does not prove that it is a")
        self.assertEqual((listener.member, listener.welcome()), (None, b""))
        dialler, _ = pair()
        dialler.begin()
        dialler.received(frame_in(encode(Kind.CHALLENGE, 0, b"n" * 32)))
        self.refuse(dialler.received, encode(Kind.WELCOME, 0, b"m" * 32), "does not prove that it is b")
        self.assertIsNone(dialler.member)

    def test_replayed(self) -> None:
        """A whole handshake that was recorded proves nothing the second time, in either direction."""
        dialler, listener = pair()
        hello = dialler.begin()
        challenge = listener.received(frame_in(hello))
        proven = dialler.received(frame_in(challenge))
        listener.received(frame_in(proven))
        welcome = listener.welcome()
        again = Answering(lambda: SECRET, "b")
        again.received(frame_in(hello))
        self.refuse(again.received, proven, "does not prove")
        fresh = Dialling(lambda: SECRET, "a", "b")
        fresh.received(frame_in(encode(Kind.CHALLENGE, 0, b"n" * 32)))
        self.refuse(fresh.received, welcome, "does not prove")
        fresh = Dialling(lambda: SECRET, "a", "b")
        fresh.received(frame_in(challenge))
        self.refuse(fresh.received, welcome, "does not prove")

    def test_reflected(self) -> None:
        """What one end said proves nothing when it is sent back: neither to it, nor on another connection to it."""
        dialler, _ = pair()
        dialler.begin()
        proven = dialler.received(frame_in(encode(Kind.CHALLENGE, 0, b"n" * 32)))
        mac = frame_in(proven).body
        self.refuse(dialler.received, encode(Kind.WELCOME, 0, mac), "does not prove")
        self.refuse(Dialling(lambda: SECRET, "a", "b").received, Dialling(lambda: SECRET, "a", "b").begin(), "HELLO where CHALLENGE")
        nonce = b"n" * 32
        self.assertEqual(
            len({proof(SECRET, role, *keys, (nonce, nonce)) for role in (b"dialler", b"listener") for keys in (("a", "b"), ("b", "a"))}), 4
        )

    def test_wrong_member(self) -> None:
        """A node that is not who was asked for, or is asked as what it was before, is refused; so is the wrong one of a pair as dialler."""
        dialler, listener = pair(asked="c")
        self.refuse(listener.received, dialler.begin(), "a asks for c, and this is b")
        for key in ("c", "b"):
            dialler, listener = pair(dialler=key)
            self.refuse(listener.received, dialler.begin(), "the smaller key dials")

    def test_version(self) -> None:
        """Another version is refused by the listener; and it is in the MAC, so that nobody in between changes it."""
        dialler, listener = pair()
        hello = bytearray(frame_in(dialler.begin()).body)
        hello[0] = 2
        self.refuse(listener.received, encode(Kind.HELLO, 0, bytes(hello)), "speaks version 2")
        now = proof(SECRET, b"dialler", "a", "b", (b"n" * 32, b"m" * 32))
        self.patch(auth, "VERSION", 2)
        self.assertNotEqual(proof(SECRET, b"dialler", "a", "b", (b"n" * 32, b"m" * 32)), now)

    def test_split(self) -> None:
        """Where one part of what is proven ends and the next begins is proven too."""
        self.assertNotEqual(proof(SECRET, b"dialler", "ab", "c", (b"n", b"m")), proof(SECRET, b"dialler", "a", "bc", (b"n", b"m")))

    def test_malformed(self) -> None:
        """What is no hello, challenge, proof or welcome at its place is refused, whatever it is."""
        hello = frame_in(pair()[0].begin()).body
        for body in (b"", b"\x01", b"\x01\x00", b"\x01\x05ab", b"\x01\x01a", hello[:-1], hello + b"x", b"\x01\x01\xff\x01b" + b"n" * 32):
            self.assertRaises(Refused, pair()[1].received, Frame(Kind.HELLO, 0, body))
        for kind in Kind:
            if kind is not Kind.HELLO:
                self.assertRaises(Refused, pair()[1].received, Frame(kind, 0, b""))
            self.assertRaises(Refused, pair()[0].received, Frame(kind, 0, b""))
        dialler, listener = pair()
        listener.received(frame_in(dialler.received(frame_in(listener.received(frame_in(dialler.begin()))))))
        self.refuse(listener.received, encode(Kind.CALL, 1, b"", "poll"), "does not prove")

    def test_long_keys(self) -> None:
        """The longest keys fit into what may come before; longer ones are refused."""
        dialler, listener = pair("a" * 255, "b" * 255)
        hello = dialler.begin()
        proven = dialler.received(frame_in(listener.received(frame_in(hello))))
        self.assertLessEqual(len(hello) + len(proven), auth.BYTES_BEFORE)
        self.assertRaises(Refused, Dialling(lambda: SECRET, "a" * 256, "b").begin)
        self.assertRaises(Refused, key_bytes, "")

    def test_secret(self) -> None:
        """A secret of another length is not used; that it cannot be told now is the caller's to hear."""
        dialler, listener = pair(secrets=(b"", SECRET))
        challenge = listener.received(frame_in(dialler.begin()))
        self.refuse(dialler.received, challenge, "has 0 bytes, and needs 32")

        def away() -> bytes:
            raise RegistryUnavailable("away")

        dialler = Dialling(away, "a", "b")
        self.assertRaises(RegistryUnavailable, dialler.received, frame_in(challenge))
