"""Errors in Confluent's shape."""

import inspect

import msgspec
from twisted.trial.unittest import SynchronousTestCase

from psubd import errors
from psubd.endpoints.confluent import faults
from psubd.endpoints.confluent.refusals import number_of, refuse
from psubd.errors import BadCredentials, MethodNotAllowed, PsubdError, StorageUnavailable, TopicNotBound, UnsupportedMediaType

V1 = ((b"accept", b"application/vnd.kafka.binary.v1+json, application/json; q=0.5"),)


def every_class():
    """All errors that a client may be told."""
    for module in (errors, faults):
        for _, kind in inspect.getmembers(module, inspect.isclass):
            if issubclass(kind, PsubdError) and kind is not PsubdError:
                yield kind


class RefusalTests(SynchronousTestCase):
    def test_every_error_has_a_number(self) -> None:
        """Each error is told by a number that is its status, or whose first three digits are."""
        seen = 0
        for kind in every_class():
            error = kind.__new__(kind)
            if getattr(kind, "status", 0) < 400:
                continue
            number = number_of(error)
            status = 404 if issubclass(kind, TopicNotBound) else kind.status
            self.assertTrue(number == status or number // 100 in (status, 500), (kind, number, status))
            seen += 1
        self.assertGreater(seen, 40)

    def test_shape(self) -> None:
        """Two members, the version's own type, and the headers that belong to the error."""
        answer = refuse(StorageUnavailable("away", 3), ())
        self.assertEqual(msgspec.json.decode(answer.body), {"error_code": 50003, "message": "away"})
        self.assertEqual((answer.status, dict(answer.headers)[b"content-type"]), (503, b"application/vnd.kafka.v2+json"))
        self.assertIn((b"retry-after", b"3"), answer.headers)
        self.assertEqual(dict(refuse(TopicNotBound("x"), V1).headers)[b"content-type"], b"application/vnd.kafka.v1+json")
        self.assertIn(b"www-authenticate", dict(refuse(BadCredentials("x", "Basic"), ()).headers))
        self.assertIn((b"allow", b"GET"), refuse(MethodNotAllowed("x", ("GET",)), ()).headers)
        self.assertIn(b"accept-encoding", dict(refuse(UnsupportedMediaType("x"), ()).headers))
