"""Templates are found as Klein's tree finds them."""

import random

from twisted.trial.unittest import SynchronousTestCase
from werkzeug.exceptions import NotFound
from werkzeug.routing import Map, Rule

from psubd.errors import NoSuchRoute
from psubd.wire.paths import PART, Found, Templates, segments


class Finding(SynchronousTestCase):
    def test_as_werkzeug(self) -> None:
        """Random tables and paths of few words: what is found, and its parts, are werkzeug's; also where a fixed segment leads astray."""
        chance = random.Random(7)
        for _ in range(300):
            shapes: dict[str, str] = {}
            for _ in range(chance.randint(1, 7)):
                template = "/" + "/".join(chance.choice(("a", "b", "{x}", "c.d")) for _ in range(chance.randint(1, 4)))
                numbered = iter("pqrst")
                template = PART.sub(lambda _, numbered=numbered: f"{{{next(numbered)}}}", template)
                shapes.setdefault(PART.sub("{}", template), template)
            templates = Templates({template: template for template in shapes.values()})
            rules = Map([Rule(PART.sub(r"<\1>", template), endpoint=template, merge_slashes=False) for template in shapes.values()])
            mapper = rules.bind("localhost")
            for _ in range(30):
                path = [chance.choice(("a", "b", "c.d", "e", "a%", "ä b")) for _ in range(chance.randint(1, 5))]
                found = templates.find(path)
                try:
                    theirs = Found(*mapper.match("/" + "/".join(path)))
                except NotFound:
                    theirs = None
                self.assertEqual(found, theirs, (list(shapes.values()), path))

    def test_root(self) -> None:
        """The root is a path without segments' names."""
        templates = Templates({"/": "root", "/page/": "page"})
        self.assertEqual(templates.find(segments(b"/")[0]), ("root", {}))
        self.assertEqual(templates.find(segments(b"/page/")[0]), ("page", {}))
        self.assertIsNone(templates.find(["none"]))

    def test_mixed(self) -> None:
        """A segment is fixed, or one part: anything else is refused when the table is made."""
        for template in ("/a{b}", "/{a}.json", "/{a}{b}"):
            with self.assertRaises(ValueError):
                Templates({template: 1})

    def test_segments(self) -> None:
        """Decoded once, without the trailing slash."""
        self.assertEqual(segments(b"/v1/a%2561/"), (["v1", "a%61"], True))
        self.assertEqual(segments(b"//"), ([""], True))
        for path in (b"/a//b", b"/%2F", b"/%00", b"/a%0a", b"/%ff"):
            with self.assertRaises(NoSuchRoute):
                segments(path)
