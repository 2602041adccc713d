"""Media types: bodies."""

from twisted.trial.unittest import SynchronousTestCase

from psubd.endpoints import media
from psubd.errors import BadHeader, UnsupportedMediaType
from psubd.testing.exchange import FakeExchange


class BodyTests(SynchronousTestCase):
    def test_json(self) -> None:
        """JSON, and a body that says nothing, are taken; parameters do not matter."""
        for headers in ([], [("content-type", "application/json")], [("content-type", 'Application/JSON; charset="UTF-8"')]):
            media.require_json(FakeExchange(headers=headers))

    def test_others(self) -> None:
        """Other types and other charsets are 415; two content types are 400."""
        for said in ("application/x-www-form-urlencoded", "text/plain", "", "application/json; charset=latin-1", "application/jsonx"):
            self.assertRaises(UnsupportedMediaType, media.require_json, FakeExchange(headers=[("content-type", said)]))
        self.assertRaises(BadHeader, media.require_json, FakeExchange(headers=[("content-type", "application/json")] * 2))
