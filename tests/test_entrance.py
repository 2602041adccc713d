"""Routes that are closed until what stands behind them can serve."""

from typing import Any

from psubd.entrance import Entrance
from psubd.errors import BadCredentials
from psubd.interfaces import Route
from psubd.model import Answer
from tests.wire.peer import Endpoint, WireCase, get, post


def refuse(exchange: Any) -> None:
    raise BadCredentials("nobody knows you")


class EntranceTests(WireCase):
    def routes(self) -> list[Route]:
        self.entrance = Entrance(lambda: "psubd is starting")
        self.alive = Endpoint(Answer())
        return self.entrance.hold(
            [
                Route("GET", "/alive", self.alive, "alive", head=True),
                Route("GET", "/get/{name}", self.endpoint, "get"),
                Route("POST", "/post", self.endpoint, "post", max_body=1000, admit=refuse),
                Route("POST", "/open", self.endpoint, "open", max_body=1000),
            ]
        )

    def test_closed(self) -> None:
        """All but `/alive` is 503 with Retry-After, and nothing of it is judged: neither credentials nor a body."""
        self.assertEqual(self.peer().send(get("/alive")).response().status, 200)
        for request in (get("/get/a"), post(b"body"), post(b"body", "/open")):
            response = self.peer().send(request).response()
            self.assertEqual((response.status, response.problem["code"], response.headers["retry-after"]), (503, "storage_unavailable", ["1"]))
            self.assertEqual(response.problem["detail"], "psubd is starting")
        self.assertEqual(self.endpoint.calls, [])
        self.assertEqual(self.peer().send(get("/nowhere")).response().status, 404)

    def test_open(self) -> None:
        """Then they are what they are: on connections that were there before, too."""
        peer = self.peer().send(get("/get/a"))
        self.assertEqual(peer.response().status, 503)
        self.entrance.open()
        self.assertEqual(peer.send(get("/get/a")).response().status, 200)
        self.assertEqual(self.endpoint.calls[0][1], {"name": "a"})
        self.assertEqual(self.peer().send(post(b"body")).response().status, 401)
        self.assertEqual(self.peer().send(post(b"body", "/open")).response().status, 200)
