"""The OpenAPI 3.1 document, made of the routes: ``/openapi.json``.

Shapes are the very types that requests are read with and answers are made of, so the document cannot drift from either.
"""

import re
from collections.abc import Iterable, Sequence
from typing import Any

import msgspec

from psubd import fields
from psubd.errors import (
    BadBody,
    BadCredentials,
    BadHeader,
    BadParameter,
    Forbidden,
    ForeignOrigin,
    HeadTooLarge,
    Internal,
    LengthRequired,
    NoSuchRoute,
    NotAcceptable,
    NotSupported,
    OverBudget,
    PsubdError,
    RegistryUnavailable,
    RequestTimeout,
    StorageTimeout,
    TargetTooLong,
    TooLarge,
    UnsupportedMediaType,
)
from psubd.interfaces import Route
from psubd.manager.doc import JSON, PROBLEM, Doc, Parameter, Reply
from psubd.manager.guard import Guard
from psubd.manager.sessions import COOKIE
from psubd.manager.views import JsonObject, Problem
from psubd.manager.visit import Visit
from psubd.model import Answer

REFERENCE = "#/components/schemas/{name}"
PART = re.compile(r"{([a-z_]+)}")

EVERYWHERE: tuple[type[PsubdError], ...] = (
    BadHeader,
    BadParameter,
    ForeignOrigin,
    RequestTimeout,
    TooLarge,
    TargetTooLong,
    UnsupportedMediaType,
    HeadTooLarge,
    Internal,
    OverBudget,
)
"""What the wire and the guard may answer on any route."""

HEADERS: dict[str, dict[str, Any]] = {
    "etag": {"description": 'The version, as `"3"`: for `If-Match`.', "schema": {"type": "string", "pattern": '^"[1-9][0-9]*"$'}, "required": True},
    "location": {"description": "Where it is.", "schema": {"type": "string"}, "required": True},
    "set-cookie": {"description": f"The session: `{COOKIE}`.", "schema": {"type": "string"}, "required": True},
    "www-authenticate": {"description": "What is taken.", "schema": {"type": "string"}, "required": True},
    "retry-after": {"description": "Seconds to wait.", "schema": {"type": "string", "pattern": "^[0-9]+$"}, "required": True},
}


class OpenApi:
    """Serves the document.

    :param routes: all routes of the manager but this one.
    """

    def __init__(self, guard: Guard, routes: Sequence[Route], version: str) -> None:
        self._guard, self._described, self._version = guard, routes, version
        self._document: bytes = b""

    def routes(self) -> list[Route]:
        doc = Doc("status", "This document", {200: Reply("An OpenAPI 3.1 document.", JsonObject)}, fresh=False)
        own = self._guard.route("GET", "/openapi.json", self.show, "openapi", doc)
        self._document = fields.json_bytes(document([*self._described, own], self._version))
        return [own]

    async def show(self, visit: Visit) -> Answer:
        return Answer(body=self._document, headers=[(b"content-type", JSON.encode())])


def document(routes: Sequence[Route], version: str) -> dict[str, Any]:
    """The whole document. Every route has a `Doc`."""
    shapes = Shapes([route.doc for route in routes])
    paths: dict[str, dict[str, Any]] = {}
    for route in routes:
        paths.setdefault(route.path, {})[route.method.lower()] = operation(route, shapes)
    return {
        "openapi": "3.1.0",
        "info": {
            "title": "psubd manager",
            "version": version,
            "description": "Registers applications, topics and bindings. The manager port's API; publish and subscribe are on the data port.",
            "license": {"name": "MIT", "identifier": "MIT"},
        },
        "servers": [{"url": "/"}],
        "tags": [{"name": tag} for tag in dict.fromkeys(route.doc.tag for route in routes)],
        "paths": paths,
        "components": {
            "schemas": shapes.components,
            "securitySchemes": {
                "token": {"type": "http", "scheme": "bearer", "description": "A manager token."},
                "session": {"type": "apiKey", "in": "cookie", "name": COOKIE, "description": "What `POST /api/v1/session` gave."},
            },
        },
    }


class Shapes:
    """The JSON schemas of all types that the routes name."""

    def __init__(self, docs: Sequence[Doc]) -> None:
        types: list[Any] = [Problem]
        for doc in docs:
            named = [doc.body, *(reply.shape for reply in doc.answers.values()), *(parameter.shape for parameter in doc.parameters)]
            types.extend(shape for shape in named if shape is not None and shape not in types)
        schemas, self.components = msgspec.json.schema_components(types, ref_template=REFERENCE)
        self._schemas = list(zip(types, schemas, strict=True))

    def of(self, shape: Any) -> dict[str, Any]:
        """The schema of one of these types; they are compared, since not every one can be hashed."""
        return next(schema for known, schema in self._schemas if known == shape)


def operation(route: Route, shapes: Shapes) -> dict[str, Any]:
    """One method of one path."""
    doc: Doc = route.doc
    described: dict[str, Any] = {
        "operationId": route.name,
        "tags": [doc.tag],
        "summary": doc.summary,
        "security": [{"token": []}, {"session": []}] if doc.roles else [],
        "parameters": [path_parameter(name) for name in PART.findall(route.path)] + [parameter(one, shapes) for one in doc.parameters],
        "responses": {str(status): body for status, body in responses(route, shapes).items()},
    }
    if doc.roles:
        described["description"] = f"For tokens of role {', '.join(doc.roles)}."
    if doc.body is not None:
        described["requestBody"] = {"required": True, "content": {JSON: {"schema": shapes.of(doc.body)}}}
    return described


def path_parameter(name: str) -> dict[str, Any]:
    return {"name": name, "in": "path", "required": True, "schema": {"type": "string", "minLength": 1}}


def parameter(one: Parameter, shapes: Shapes) -> dict[str, Any]:
    return {"name": one.name, "in": one.where, "required": False, "description": one.text, "schema": shapes.of(one.shape)}


def responses(route: Route, shapes: Shapes) -> dict[int, dict[str, Any]]:
    """Every status that the route can answer, the good ones first."""
    good = {status: response(reply, shapes) for status, reply in route.doc.answers.items()}
    bad: dict[int, list[type[PsubdError]]] = {}
    for error in refusals(route):
        bad.setdefault(error.status, []).append(error)
    return good | {status: refusal(errors, shapes) for status, errors in sorted(bad.items())}


def refusals(route: Route) -> Iterable[type[PsubdError]]:
    """What the route can refuse with, each once."""
    doc: Doc = route.doc
    found = [*EVERYWHERE, *doc.refusals]
    if doc.roles:
        found += [BadCredentials, Forbidden, RegistryUnavailable]
    if doc.media:
        found.append(NotAcceptable)
    if doc.body is not None:
        found += [BadBody, LengthRequired]
    if route.method != "GET":
        # A registry that stops, or loses its connection, in the middle of a write cannot tell what became of it.
        found += [NotSupported, StorageTimeout]
    if "{" in route.path:
        found.append(NoSuchRoute)
    return dict.fromkeys(found)


def response(reply: Reply, shapes: Shapes) -> dict[str, Any]:
    """A good answer."""
    described: dict[str, Any] = {"description": reply.text}
    if reply.headers:
        described["headers"] = {name: HEADERS[name] for name in reply.headers}
    if reply.media:
        described["content"] = {
            media: {"schema": shapes.of(reply.shape) if media == JSON and reply.shape is not None else {"type": "string"}} for media in reply.media
        }
    return described


def refusal(errors: Sequence[type[PsubdError]], shapes: Shapes) -> dict[str, Any]:
    """The refusals that share a status."""
    words = dict.fromkeys(f"`{error.code}`: {error.title}" for error in errors)
    described: dict[str, Any] = {"description": "; ".join(words) + ".", "content": {PROBLEM: {"schema": shapes.of(Problem)}}}
    names = {401: "www-authenticate", 429: "retry-after", 503: "retry-after"}
    if errors[0].status in names:
        name = names[errors[0].status]
        described["headers"] = {name: HEADERS[name]}
    return described
