"""What these tests need of the machine."""

import os
import shutil
from unittest import SkipTest


def need_wrk() -> None:
    """Skip the test where there is no wrk; with ``CI=true`` fail it."""
    if shutil.which("wrk") is None:
        if os.environ.get("CI") == "true":
            raise AssertionError("wrk is not installed; CI runs these tests")
        raise SkipTest("needs wrk")
