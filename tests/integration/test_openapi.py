"""schemathesis, on the manager of a real daemon over real HTTP."""

import base64
import os
import shutil
import subprocess
import sys
import tempfile
import unittest
from pathlib import Path

from twisted.trial.unittest import SynchronousTestCase

from psubd.testing.daemon import ADMIN_TOKEN, Daemon, bind, make_topic, register

BIN = Path(sys.executable).parent
CHECKS = (
    "not_a_server_error",
    "status_code_conformance",
    "content_type_conformance",
    "response_headers_conformance",
    "response_schema_conformance",
    "negative_data_rejection",
    "unsupported_method",
    "allow_header_conformance",
    "ignored_auth",
)
"""All but `positive_data_acceptance` (what a schema can say is not enough for a registered owner, or a cursor) and the stateful ones."""

KNOWN = """
[parameters]
"path.application" = "shop"
"path.topic" = "orders"
"path.group" = "shop"
"path.name" = "victim"
[[operations]]
include-path-regex = "/api/v1/applications/"
parameters = { "path.id" = "shop" }
[[operations]]
include-path-regex = "/api/v1/topics/"
parameters = { "path.id" = "orders" }
"""
"""Parts of paths that lead to what is there, so that more than 404 is seen."""

GENERAL = """
seed = 1
continue-on-failure = true
headers = { Authorization = "%s" }
[generation]
max-examples = 20
with-security-parameters = false
"""
"""With the credential to show."""

SETTINGS = (
    GENERAL % "Bearer ${PSUBD_TOKEN}"
    + """
[[operations]]
include-operation-id = "events"
headers = { Accept = "application/json" }
"""
)
"""The events are asked for as a list: a stream does not end."""

RUN_S = 240


@unittest.skipUnless("PYTEST_VERSION" in os.environ, "starts processes: run it with pytest")
class SchemathesisTests(SynchronousTestCase):
    def setUp(self) -> None:
        self.folder = Path(tempfile.mkdtemp(prefix="psubd-openapi-"))
        self.addCleanup(shutil.rmtree, self.folder)
        self.daemon = Daemon(str(self.folder / "state"), ["--storage", "memory:"])
        self.addCleanup(self.daemon.kill)
        self.daemon.start()

    def fill(self) -> None:
        """An application, a topic that it is bound to, and a token to delete."""
        manager = self.daemon.manager()
        self.addCleanup(manager.close)
        register(manager, "shop")
        make_topic(manager, "orders", "shop", partitions=3)
        bind(manager, "shop", "orders", pub=True, sub=True)
        self.assertEqual(manager.send("POST", "/api/v1/tokens", {"name": "victim", "role": "viewer"}).status, 201)

    def examine(self, settings: str, *choice: str) -> None:
        """Let schemathesis loose; all its checks hold, and the daemon had no bug."""
        config = self.folder / "schemathesis.toml"
        config.write_text(settings)
        url = f"http://127.0.0.1:{self.daemon.ports.manager}/openapi.json"
        command = [str(BIN / "schemathesis"), "--config-file", str(config), "run", url]
        command += ["--phases", "coverage,fuzzing", "--checks", ",".join(CHECKS), "--no-color", *choice]
        environ = {**os.environ, "PSUBD_TOKEN": ADMIN_TOKEN}
        ran = subprocess.run(command, capture_output=True, text=True, timeout=RUN_S, cwd=self.folder, env=environ, check=False)
        self.assertEqual(ran.returncode, 0, ran.stdout + ran.stderr)
        self.assertIsNone(self.daemon.process.poll(), self.daemon.output())
        self.assertNotIn("Traceback", self.daemon.output())

    def test_what_is_there(self) -> None:
        """On things that are there: no 5xx and no answer that the document does not have."""
        self.fill()
        self.examine(SETTINGS + KNOWN, "--exclude-operation-id-regex", "^delete(Application|Topic|Binding|Group)$")

    def test_anything(self) -> None:
        """On any path, with deletions: the same. The one deletion that is left out is the one that ends the examiner's own token."""
        self.examine(SETTINGS, "--exclude-operation-id", "deleteToken")


DIALECT = GENERAL % "Basic ${PSUBD_BASIC}"

INSTANCES = """
[parameters]
"path.group" = "g"
"path.instance" = "i"
"path.topic" = "orders"
"path.partition" = "0"
"""

LENIENT = (
    "not_a_server_error",
    "status_code_conformance",
    "content_type_conformance",
    "response_schema_conformance",
    "unsupported_method",
    "allow_header_conformance",
)
"""Confluent's clients send more than what is described, and numbers as text: what is not described may be taken."""


@unittest.skipUnless("PYTEST_VERSION" in os.environ, "starts processes: run it with pytest")
class ConfluentSchemathesisTests(SynchronousTestCase):
    def setUp(self) -> None:
        self.folder = Path(tempfile.mkdtemp(prefix="psubd-openapi-"))
        self.addCleanup(shutil.rmtree, self.folder)
        config = self.folder / "psubd.toml"
        config.write_text("consumer_request_timeout_ms = 20\napplication_topics = 20\n")
        self.daemon = Daemon(str(self.folder / "state"), ["--storage", "memory:", "--config", str(config)])
        self.addCleanup(self.daemon.kill)
        self.daemon.start()
        manager = self.daemon.manager()
        self.addCleanup(manager.close)
        tenant = register(manager, "shop")
        make_topic(manager, "orders", "shop", partitions=3)
        bind(manager, "shop", "orders", pub=True, sub=True)
        parts = (tenant.publish["pubkey"], tenant.publish["secret"], tenant.subscribe["subkey"])
        self.basic = base64.b64encode(":".join(parts).encode()).decode()

    def examine(self, settings: str, *choice: str) -> None:
        """Let schemathesis loose; nothing is a server error, nor an answer that the description does not have."""
        config = self.folder / "schemathesis.toml"
        config.write_text(settings)
        url = f"http://127.0.0.1:{self.daemon.ports.data}/openapi.json"
        command = [str(BIN / "schemathesis"), "--config-file", str(config), "run", url]
        command += ["--phases", "coverage,fuzzing", "--checks", ",".join(LENIENT), "--no-color", *choice]
        environ = {**os.environ, "PSUBD_BASIC": self.basic}
        ran = subprocess.run(command, capture_output=True, text=True, timeout=RUN_S, cwd=self.folder, env=environ, check=False)
        self.assertEqual(ran.returncode, 0, ran.stdout + ran.stderr)
        self.assertIsNone(self.daemon.process.poll(), self.daemon.output())
        self.assertNotIn("Traceback", self.daemon.output())

    def test_an_instance_that_is_there(self) -> None:
        """On an instance, a topic and a partition that are there: no 5xx."""
        client = self.daemon.data(authorization=f"Basic {self.basic}")
        self.addCleanup(client.close)
        made = client.request("POST", "/consumers/g", b'{"name": "i", "format": "json"}', {"content-type": "application/vnd.kafka.v2+json"})
        self.assertEqual(made.status, 200, made)
        self.examine(DIALECT + INSTANCES, "--exclude-operation-id", "deleteInstance")

    def test_anything(self) -> None:
        """On any path: the same."""
        self.examine(DIALECT)
