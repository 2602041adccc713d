"""A real browser for tests: Debian's chromium, headless, driven by selenium, with what the tests of a page ask of it.

``apt-get install chromium chromium-driver`` brings both; as root on a Debian-like machine they are installed by themselves. Where they cannot be
had the tests are skipped with the reason, with ``CI=true`` that is an error.
"""

import fcntl
import json
import os
import shutil
import subprocess
import tempfile
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from functools import cache
from pathlib import Path
from typing import Any, cast
from unittest import SkipTest

from selenium import webdriver
from selenium.webdriver.chrome.options import Options
from selenium.webdriver.chrome.service import Service
from selenium.webdriver.remote.webdriver import WebDriver

from psubd.testing import npm

PROGRAMS = ("chromium", "chromedriver")
PACKAGES = ("chromium", "chromium-driver")
INSTALL_S = 600
AXE = ("axe-core", "4.10.3")

SERIOUS = ("serious", "critical")
"""What axe-core calls the impact of a violation that no page may have."""


def need() -> None:
    """Skip the test where there is no browser and none can be had; with ``CI=true`` fail it."""
    reason = missing()
    if reason is None:
        return
    if os.environ.get("CI") == "true":
        raise AssertionError(f"{reason}; CI runs these tests")
    raise SkipTest(reason)


@cache
def missing() -> str | None:
    """Why there is no browser; None: there is one. Installs it where that can be done."""
    if all(map(shutil.which, PROGRAMS)):
        return None
    if os.geteuid() != 0 or shutil.which("apt-get") is None:
        return f"needs {' and '.join(PROGRAMS)} (Debian: apt-get install {' '.join(PACKAGES)})"
    with open(os.path.join(tempfile.gettempdir(), "psubd-tests-browser.lock"), "w", encoding="ascii") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        if all(map(shutil.which, PROGRAMS)):
            return None
        return install()


def install() -> str | None:
    """Why it could not be installed; None: it is."""
    environ = {**os.environ, "DEBIAN_FRONTEND": "noninteractive"}
    for command in (["apt-get", "update", "-q"], ["apt-get", "install", "-q", "-y", "--no-install-recommends", *PACKAGES]):
        ended = subprocess.run(command, capture_output=True, text=True, timeout=INSTALL_S, env=environ, check=False)
        if ended.returncode != 0:
            return f"{' '.join(command)} failed: {ended.stderr[-500:]}"
    return None


@contextmanager
def browser(width: int = 1280, height: int = 900, *, dark: bool = False) -> Iterator[WebDriver]:
    """A browser with a profile of its own, gone at the end. :param dark: what it says of the system's colour scheme."""
    options = Options()
    options.binary_location = shutil.which(PROGRAMS[0]) or ""
    profile = tempfile.mkdtemp(prefix="psubd-browser-")
    flags = ("--headless=new", "--no-sandbox", "--disable-gpu", "--disable-dev-shm-usage", "--no-first-run", "--hide-scrollbars")
    for flag in (*flags, f"--user-data-dir={profile}", f"--window-size={width},{height}", "--force-device-scale-factor=1"):
        options.add_argument(flag)
    options.set_capability("goog:loggingPrefs", {"browser": "ALL", "performance": "ALL"})
    driver = webdriver.Chrome(options, Service(shutil.which(PROGRAMS[1])))
    try:
        driver.set_page_load_timeout(60)
        scheme = [{"name": "prefers-color-scheme", "value": "dark" if dark else "light"}]
        size = {"width": width, "height": height, "deviceScaleFactor": 1, "mobile": width < 600}
        driver.execute_cdp_cmd("Emulation.setEmulatedMedia", {"features": scheme})
        driver.execute_cdp_cmd("Emulation.setDeviceMetricsOverride", size)
        yield driver
    finally:
        driver.quit()
        shutil.rmtree(profile, ignore_errors=True)


def complaints(driver: WebDriver) -> list[str]:
    """What the console was told since it was last asked: errors and warnings of the page, a policy that was broken among them."""
    return [entry["message"] for entry in log_of(driver, "browser") if entry["level"] in ("SEVERE", "WARNING")]


def log_of(driver: WebDriver, name: str) -> list[dict[str, Any]]:
    """What one of its logs holds, taken out of it. A method of chromium's alone, which selenium's types leave out."""
    found: list[dict[str, Any]] = cast(Any, driver).get_log(name)
    return found


def violations(driver: WebDriver, impacts: Sequence[str] = SERIOUS) -> list[str]:
    """What axe-core finds on the page as it is now, a line each."""
    script = Path(npm.package(*AXE), AXE[0], "axe.min.js").read_text(encoding="utf-8")
    # Evaluated by the debugger, which no policy of the page's binds.
    driver.execute_cdp_cmd("Runtime.evaluate", {"expression": script})
    ran = driver.execute_cdp_cmd("Runtime.evaluate", {"expression": RUN_AXE, "awaitPromise": True, "returnByValue": True})
    found: list[dict[str, Any]] = json.loads(ran["result"]["value"])
    return [f"{one['id']} ({one['impact']}): {one['help']}: {one['where']}" for one in found if one["impact"] in impacts]


RUN_AXE = """axe.run(document, {resultTypes: ['violations']}).then(r => JSON.stringify(r.violations.map(v => ({
    id: v.id, impact: v.impact, help: v.help,
    where: v.nodes.slice(0, 5).map(n => n.target.join(' ') + ' ' + (n.failureSummary || '')).join(' | ')}))))"""


def transferred(driver: WebDriver) -> dict[str, int]:
    """Bytes of each answer's content since it was last asked, by URL: what a first view costs, uncompressed."""
    urls: dict[str, str] = {}
    sizes: dict[str, int] = {}
    for entry in log_of(driver, "performance"):
        said = json.loads(entry["message"])["message"]
        told = said["params"]
        if said["method"] == "Network.responseReceived":
            urls[told["requestId"]] = told["response"]["url"]  # the browser's own pages are among them
        elif said["method"] == "Network.dataReceived" and urls.get(told["requestId"], "").startswith("http"):
            url = urls[told["requestId"]]
            sizes[url] = sizes.get(url, 0) + told["dataLength"]
    return sizes
