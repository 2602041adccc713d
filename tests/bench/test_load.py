"""Scripts for wrk, and what it prints."""

from twisted.trial.unittest import SynchronousTestCase

from bench import load
from bench.load import LoadFailed, Request

PUBLISH = Request("POST", "/v1/pub", {"topic.id": "t", "acks": "all"}, b"x" * 100)


class Lua(SynchronousTestCase):
    """The parts of a script."""

    def test_strings_hold_any_byte(self) -> None:
        """Quotes, backslashes, control characters and bytes past ASCII stand as their numbers."""
        self.assertEqual(load.quoted(b'a"\\\n\x00\xff1'), '"a\\034\\092\\010\\000\\2551"')

    def test_a_script_of_one_request_has_no_function_for_each(self) -> None:
        """wrk formats the request once: with a function it would spend more than the server does."""
        self.assertNotIn("request = function", load.same(PUBLISH))


class Told(SynchronousTestCase):
    """What wrk prints."""

    def test_the_line_is_found(self) -> None:
        output = f'Running 1s test\n{load.MARK}{{"requests": 3, "us": 7}}\n'
        self.assertEqual(load.told_by(output), {"requests": 3, "us": 7})

    def test_without_it_wrk_s_words_are_told(self) -> None:
        with self.assertRaisesRegex(LoadFailed, "unable to connect"):
            load.told_by("unable to connect to 127.0.0.1:1 Connection refused")
