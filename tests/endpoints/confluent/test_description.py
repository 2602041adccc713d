"""The OpenAPI description of Confluent's routes."""

from psubd.endpoints.confluent.description import SAID
from tests.endpoints.confluent.produce_house import ConfluentCase


class DescriptionTests(ConfluentCase):
    def test_every_route(self) -> None:
        """Each of Confluent's routes is described, and nothing that is none."""
        document = self.call("GET", "/openapi.json", headers=[]).json
        described = {(method.upper(), path) for path, methods in document["paths"].items() for method in methods}
        served = {(route.method, route.path) for route in self.routes if route.refusal is not None}
        self.assertEqual(described, served)
        self.assertEqual(set(SAID), {route.name for route in self.routes if route.refusal is not None})

    def test_shapes(self) -> None:
        """What a body names is described, and every reference leads somewhere."""
        document = self.call("GET", "/openapi.json", headers=[]).json
        schemas = document["components"]["schemas"]
        self.assertIn("auto.offset.reset", schemas["NewInstance"]["properties"])
        for name in self.references(document):
            self.assertIn(name, schemas)

    def references(self, value):
        if isinstance(value, dict):
            for key, below in value.items():
                if key == "$ref":
                    yield below.rpartition("/")[2]
                else:
                    yield from self.references(below)
        elif isinstance(value, list):
            for below in value:
                yield from self.references(below)
