"""Keys and what is kept of them."""

import re

from twisted.trial.unittest import SynchronousTestCase

from psubd.keys import PREFIXES, digest, make


class KeyTests(SynchronousTestCase):
    """`psubd.keys`."""

    def test_make(self) -> None:
        """Each kind has its prefix; behind it are 43 characters of URL-safe base64, never twice the same."""
        self.assertEqual(PREFIXES, {"pubkey": "pk_", "secret": "ps_", "subkey": "sk_", "token": "pt_"})
        for kind, prefix in PREFIXES.items():
            made = {make(kind) for _ in range(100)}
            self.assertEqual(len(made), 100)
            for text in made:
                self.assertTrue(re.fullmatch(prefix + "[A-Za-z0-9_-]{43}", text))

    def test_digest(self) -> None:
        """The SHA-256 of the whole text in hex (FIPS 180-2, appendix B.1), and of anything that a client may send."""
        self.assertEqual(digest("abc"), "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad")
        self.assertNotEqual(digest("\udcff"), digest("\ufffd"))
