import re
from typing import Any

import jsonschema_rs
import msgspec

from psubd.fields import application_id, topic_id
from psubd.manager.forms import ApplicationId, TopicId
from psubd.manager.openapi import refusals
from tests.manager.house import ManagerCase

ROUTES = {
    "POST /api/v1/session",
    "POST /api/v1/tokens",
    "GET /api/v1/tokens",
    "GET /api/v1/tokens/{name}",
    "DELETE /api/v1/tokens/{name}",
    "POST /api/v1/applications",
    "GET /api/v1/applications",
    "GET /api/v1/applications/{id}",
    "POST /api/v1/applications/{id}/rotate",
    "DELETE /api/v1/applications/{id}",
    "POST /api/v1/topics",
    "GET /api/v1/topics",
    "GET /api/v1/topics/{id}",
    "PATCH /api/v1/topics/{id}",
    "DELETE /api/v1/topics/{id}",
    "GET /api/v1/topics/{id}/messages",
    "PUT /api/v1/bindings/{application}/{topic}",
    "GET /api/v1/bindings/{application}/{topic}",
    "DELETE /api/v1/bindings/{application}/{topic}",
    "GET /api/v1/bindings",
    "GET /api/v1/groups",
    "GET /api/v1/groups/{group}",
    "DELETE /api/v1/groups/{group}",
    "PUT /api/v1/groups/{group}/offsets",
    "POST /api/v1/groups/{group}/redrive",
    "GET /api/v1/nodes",
    "GET /api/v1/status",
    "GET /api/v1/events",
    "GET /alive",
    "GET /ready",
    "GET /metrics",
    "GET /openapi.json",
}
"""Section 5 of the contract, and the list of tokens and one binding beside it."""


class DocumentTests(ManagerCase):
    def setUp(self) -> None:
        super().setUp()
        self.document: dict[str, Any] = self.ok("GET", "/openapi.json").json

    def operations(self) -> dict[str, Any]:
        """What the document describes, by method and path."""
        return {f"{method.upper()} {path}": operation for path, item in self.document["paths"].items() for method, operation in item.items()}

    def test_routes(self) -> None:
        """The routes are the contract's, and the document describes them: all, and no others."""
        self.assertEqual({f"{route.method} {route.path}" for route in self.routes}, ROUTES)
        self.assertEqual(set(self.operations()), ROUTES)

    def test_statuses(self) -> None:
        """Each route's answers and refusals are in the document, and no others."""
        operations = self.operations()
        for route in self.routes:
            described = set(operations[f"{route.method} {route.path}"]["responses"])
            self.assertEqual(described, {str(status) for status in route.doc.answers} | {str(error.status) for error in refusals(route)})

    def test_inputs(self) -> None:
        """Each route's path parts, parameters and body are in the document."""
        operations = self.operations()
        for route in self.routes:
            operation = operations[f"{route.method} {route.path}"]
            described = {(parameter["in"], parameter["name"]) for parameter in operation["parameters"]}
            parts = {("path", name) for name in re.findall(r"{(\w+)}", route.path)}
            self.assertEqual(described, parts | {(parameter.where, parameter.name) for parameter in route.doc.parameters})
            self.assertEqual("requestBody" in operation, route.doc.body is not None)
            self.assertEqual(route.max_body > 0, route.doc.body is not None)

    def test_security(self) -> None:
        """The open routes need no token by the document either; all others do."""
        for name, operation in self.operations().items():
            open = name in ("GET /alive", "GET /ready", "POST /api/v1/session")
            self.assertEqual(operation["security"] == [], open, name)
            self.assertEqual("401" in operation["responses"], not open or name.startswith("POST"), name)

    def test_names(self) -> None:
        """Operation ids are unique: generated clients make functions of them."""
        names = [operation["operationId"] for operation in self.operations().values()]
        self.assertEqual(len(names), len(set(names)))

    def test_references(self) -> None:
        """Every reference leads somewhere, and every schema is one that JSON Schema 2020-12 knows."""
        text = msgspec.json.encode(self.document).decode()
        schemas = self.document["components"]["schemas"]
        for name in re.findall(r'"\$ref":"#/components/schemas/([^"]+)"', text):
            self.assertIn(name, schemas)
        for name in schemas:
            jsonschema_rs.validator_for({"$ref": f"#/components/schemas/{name}", "components": {"schemas": schemas}})

    def test_limits(self) -> None:
        """What only shows when something is full or in doubt is documented, too: too many groups, too many bindings, a write of unknown outcome."""
        operations = self.operations()
        for name, status in (("PUT /api/v1/groups/{group}/offsets", "429"), ("PUT /api/v1/bindings/{application}/{topic}", "409")):
            self.assertIn(status, operations[name]["responses"])
        for name, operation in operations.items():
            if not name.startswith("GET "):
                self.assertIn("504", operation["responses"], name)

    def test_if_match(self) -> None:
        """Who takes If-Match can refuse with 412, and the other way round."""
        for name, operation in self.operations().items():
            takes = any(parameter["name"] == "if-match" for parameter in operation["parameters"])
            self.assertEqual("412" in operation["responses"], takes, name)


class GrammarTests(ManagerCase):
    def test_patterns(self) -> None:
        """The patterns of the document mean what `psubd.fields` means."""
        for text in (
            "a",
            "A-z_9",
            "a.b",
            "..",
            ".",
            "...",
            "__x",
            "_x",
            "x__",
            "",
            "a\n",
            "\n",
            "a b",
            "\xe9",
            "x" * 64,
            "x" * 65,
            "x" * 200,
            "x" * 201,
        ):
            for shape, judge in ((ApplicationId, application_id), (TopicId, topic_id)):
                try:
                    msgspec.convert(text, shape)
                    taken = True
                except msgspec.ValidationError:
                    taken = False
                self.assertEqual(taken, judge(text), (shape, text))
