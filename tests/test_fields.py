"""The grammar of what clients send."""

from typing import Annotated

import msgspec
from msgspec import Meta
from twisted.trial.unittest import SynchronousTestCase

from psubd import fields
from psubd.errors import BadBody, BadHeader, BadParameter


class Shape(msgspec.Struct, forbid_unknown_fields=True):
    id: Annotated[str, Meta(pattern=fields.TOPIC_PATTERN)]
    count: int = 0


class IdTests(SynchronousTestCase):
    def test_applications(self) -> None:
        """An application's id has 1 to 64 of letters, digits, _ and -: no dot, so that a group's full name splits in one way only."""
        for good in ("a", "A-b_9", "x" * 64):
            self.assertTrue(fields.application_id(good), good)
        for bad in ("", "a.b", "x" * 65, "a\n", "ä", "a b", "\uff11"):
            self.assertFalse(fields.application_id(bad), bad)

    def test_topics(self) -> None:
        """A topic's id may have dots, but is neither . nor .. and does not begin with __."""
        for good in ("a", "...", "a.b", "_a", "x" * 200):
            self.assertTrue(fields.topic_id(good), good)
        for bad in ("", ".", "..", "__a", "x" * 201, "a\n", ".\n", "a/b", "\uff11"):
            self.assertFalse(fields.topic_id(bad), bad)


class NumberTests(SynchronousTestCase):
    def test_integers(self) -> None:
        """ASCII digits, at most 19, within the range; nothing that Python's int would take beside."""
        self.assertEqual(fields.integer("-5", "n", -5, 5), -5)
        self.assertEqual(fields.integer(str(fields.INT64), "n", 0, fields.INT64), fields.INT64)
        for bad in ("", "+1", " 1", "1 ", "1_0", "0x1", "1.0", "\u0661", "1\n", "1" * 20, "6", "--1"):
            error = self.assertRaises(BadParameter, fields.integer, bad, "n", 0, 5)
            self.assertTrue(error.detail.startswith("n: "), error.detail)
        self.assertRaises(BadHeader, fields.integer, "x", "n", 0, 5, BadHeader)

    def test_booleans(self) -> None:
        """``true`` and ``false``, as written."""
        self.assertEqual([fields.boolean("true", "b"), fields.boolean("false", "b")], [True, False])
        for bad in ("True", "1", "", "yes", "true "):
            self.assertRaises(BadParameter, fields.boolean, bad, "b")


class QueryTests(SynchronousTestCase):
    def test_taken(self) -> None:
        """Percent-decoded once; a plus is a blank; what may repeat keeps its order."""
        known = {"a": True, "b": False}
        self.assertEqual(fields.query(b"", known), {})
        self.assertEqual(fields.query(b"a=1&b=x+y%2B%2520&a=2&&", known), {"a": ["1", "2"], "b": ["x y+%20"]})

    def test_refused(self) -> None:
        """Unknown, repeated, NUL, not UTF-8: the refusal names the parameter."""
        for raw in (b"c=1", b"b=1&b=1", b"b=%00", b"b=%ff", b"%ff=1", b"B=1"):
            self.assertRaises(BadParameter, fields.query, raw, {"a": True, "b": False})


class JsonTests(SynchronousTestCase):
    def test_depth(self) -> None:
        """64 levels are read, 65 are refused before a parser sees them; brackets in texts do not count."""
        self.assertEqual(fields.json_body(b"[" * 64 + b"]" * 64, list)[0] != [], True)
        self.assertRaises(BadBody, fields.json_body, b"[" * 65 + b"]" * 65, list)
        self.assertEqual(fields.json_body(b'["' + b"[" * 500 + b'\\"' + b"{" * 500 + b'"]', list)[0][:2], "[[")
        self.assertRaises(BadBody, fields.json_body, b"[" * 100_000, list)
        wide = b"[" + b",".join([b"[]"] * 1000) + b"]"
        self.assertEqual(len(fields.json_body(wide, list)), 1000)

    def test_refusals(self) -> None:
        """A refusal names the field and what it takes, in words."""
        for body, said in (
            (b'{"id": ".."}', "Expected an id of 1 to 200 of A-Z a-z 0-9 . _ -, not . or .., not beginning with __ - at `$.id`"),
            (b'{"id": "a", "count": "x"}', "Expected `int`, got `str` - at `$.count`"),
            (b'{"id": "a", "cuont": 1}', "Object contains unknown field `cuont`"),
            (b"{}", "Object missing required field `id`"),
        ):
            self.assertEqual(self.assertRaises(BadBody, fields.json_body, body, Shape).detail, said)
        for body in (b"", b"{", b'{"id": "\xff"}', b"nope"):
            self.assertIn("not JSON", self.assertRaises(BadBody, fields.json_body, body, Shape).detail)
