"""This process: how it ends and how it tells."""

import io
import resource
import sys
from unittest import mock

from twisted.trial.unittest import SynchronousTestCase

from psubd import process
from psubd.errors import ConfigError, StorageUnavailable


class EndingTests(SynchronousTestCase):
    def ending(self) -> process.Ending:
        with mock.patch("atexit.register") as registered:
            ending = process.Ending()
        registered.assert_called_once_with(ending.leave)
        return ending

    def test_well(self) -> None:
        """Nothing went wrong: the interpreter ends as it would."""
        with mock.patch("os._exit") as leave:
            self.ending().leave()
        leave.assert_not_called()

    def test_status(self) -> None:
        """The status is what the process ends with."""
        ending = self.ending()
        ending.status = 1
        with mock.patch("os._exit") as leave:
            ending.leave()
        leave.assert_called_once_with(1)

    def test_without_traceback(self) -> None:
        """The exception that was told ends the process without a word; any other one as ever."""
        self.patch(sys, "excepthook", mock.Mock())
        usual, told, other = sys.excepthook, ValueError("told"), ValueError("other")
        process.end_plainly(told)
        sys.excepthook(ValueError, told, None)
        usual.assert_not_called()
        sys.excepthook(ValueError, other, None)
        usual.assert_called_once_with(ValueError, other, None)


class TellTests(SynchronousTestCase):
    def test_tell(self) -> None:
        """To stderr, a line each."""
        with mock.patch("sys.__stderr__", io.StringIO()) as stderr:
            process.tell(["one", "two"])
        self.assertEqual(stderr.getvalue(), "psubd: one\npsubd: two\n")

    def test_reasons(self) -> None:
        """Each kind of failure says why; a bug of ours goes to the log with its traceback."""
        self.assertEqual(process.reasons(ConfigError(["a", "b"])), ["a", "b"])
        self.assertEqual(process.reasons(StorageUnavailable("it is away")), ["it is away"])
        self.assertEqual(process.reasons(OSError(28, "No space left on device", "/s/x")), ["/s/x: No space left on device"])
        try:
            raise KeyError("x")
        except KeyError as bug:
            (line,) = process.reasons(bug)
        self.assertEqual(line, "a bug of psubd's: KeyError: 'x'; the log has the traceback")
        self.assertEqual(len(self.flushLoggedErrors(KeyError)), 1)


class OpenFilesTests(SynchronousTestCase):
    def limit(self, soft: int, hard: int, wanted: int) -> list[tuple[int, int]]:
        """What the limit was set to, if it was."""
        with mock.patch("resource.getrlimit", return_value=(soft, hard)), mock.patch("resource.setrlimit") as set_limit:
            process.raise_open_files(wanted)
        return [call.args[1] for call in set_limit.call_args_list]

    def test_raised(self) -> None:
        """As far as is wanted and as the system allows; never lowered."""
        infinity = resource.RLIM_INFINITY
        self.assertEqual(self.limit(1024, 4096, 50_000), [(4096, 4096)])
        self.assertEqual(self.limit(1024, infinity, 50_000), [(50_000, infinity)])
        self.assertEqual(self.limit(60_000, 100_000, 50_000), [])
        self.assertEqual(self.limit(infinity, infinity, 50_000), [])
