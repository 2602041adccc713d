"""The main path: requests in, answers out."""

from collections.abc import Sequence

from twisted.internet.defer import Deferred, fail

from psubd.errors import BadBody, BadCredentials, PsubdError, RateLimited, TopicNotBound
from psubd.interfaces import Route
from psubd.model import Answer
from tests.wire.peer import Endpoint, Waiting, WireCase, chunked, get, post


class Answers(WireCase):
    def test_get(self) -> None:
        """A GET reaches its endpoint; the answer carries the contract's headers and a length, and the connection goes on."""
        peer = self.peer().send(get("/get?a=1&b=%20", "X-One:  1 ", "X-One: 2"))
        response = peer.response()
        self.assertEqual((response.status, response.body), (200, b"ok"))
        self.assertEqual(
            sorted(response.headers),
            ["cache-control", "content-length", "content-type", "date", "x-content-type-options", "x-request-id"],
        )
        exchange = self.endpoint.exchange
        self.assertEqual((exchange.method, exchange.path, exchange.raw_query, exchange.body), ("GET", "/get", b"a=1&b=%20", b""))
        self.assertEqual(list(exchange.headers), [(b"host", b"psubd.test"), (b"x-one", b"1"), (b"x-one", b"2")])
        self.assertEqual((exchange.client, exchange.secure), ("192.168.1.1", False))
        self.assertFalse(peer.closed)

    def test_post(self) -> None:
        """A body arrives whole, by length and in chunks, however it is cut up on its way."""
        for raw in (post(b"x" * 1000), chunked(b"x" * 1000, piece=300), chunked(b"x" * 1000, piece=1)):
            for piece in (None, 1, 7):
                self.endpoint.calls.clear()
                peer = self.peer().send(raw, piece)
                self.assertEqual(peer.response().status, 200)
                self.assertEqual(self.endpoint.exchange.body, b"x" * 1000)

    def test_byte_by_byte(self) -> None:
        """A request that comes a byte at a time is one request."""
        peer = self.peer().send(get("/get", "X-A: b"), 1)
        self.assertEqual(peer.response().status, 200)
        self.assertEqual(len(self.endpoint.calls), 1)

    def test_empty_body(self) -> None:
        """A length of 0 and an empty chunked body are empty bodies; so is no body at all."""
        for raw in (post(b""), chunked(b""), get("/post", method="POST")):
            self.endpoint.calls.clear()
            self.assertEqual(self.peer().send(raw).response().status, 200)
            self.assertEqual(self.endpoint.exchange.body, b"")

    def test_multipart_is_raw(self) -> None:
        """Forms are not parsed: the endpoint gets the bytes that were sent."""
        body = b'--b\r\ncontent-disposition: form-data; name="a"\r\n\r\n1\r\n--b--\r\n'
        self.peer().send(post(body, "/post", "Content-Type: multipart/form-data; boundary=b"))
        self.assertEqual(self.endpoint.exchange.body, body)
        self.endpoint.calls.clear()
        self.peer().send(post(b"a=1&b=2", "/post", "Content-Type: application/x-www-form-urlencoded"))
        self.assertEqual(self.endpoint.exchange.body, b"a=1&b=2")

    def test_request_id(self) -> None:
        """A sane x-request-id is the client's own; any other, or two, gets one of ours, another one each time."""
        sane = self.peer().send(get("/get", "X-Request-ID: a.B:c_d-9")).response()
        self.assertEqual(sane.headers["x-request-id"], ["a.B:c_d-9"])
        self.assertEqual(self.endpoint.exchange.request_id, "a.B:c_d-9")
        ours = []
        for headers in (["X-Request-ID: a b"], ["X-Request-ID: "], ["X-Request-ID: " + "a" * 129], ["X-Request-ID: a", "X-Request-ID: a"], []):
            ours += self.peer().send(get("/get", *headers)).response().headers["x-request-id"]
        self.assertEqual(len(set(ours)), 5)
        self.assertNotIn("a", ours)

    def test_no_content(self) -> None:
        """204 has neither body nor content-type nor content-length."""
        self.endpoint.answer = Answer(status=204, headers=[(b"content-type", b"text/plain"), (b"x-a", b"b")], body=b"stray")
        peer = self.peer().send(get() + get())
        first, second = peer.responses()
        self.assertEqual((first.status, first.headers.get("content-type"), first.headers.get("content-length")), (204, None, None))
        self.assertEqual((first.headers["x-a"], second.status), (["b"], 204))

    def test_own_cache_control_is_replaced(self) -> None:
        """An endpoint's cache-control does not stand beside the contract's."""
        self.endpoint.answer = Answer(headers=[(b"cache-control", b"public")])
        self.assertEqual(self.peer().send(get()).response().headers["cache-control"], ["no-store"])

    def test_later_answer(self) -> None:
        """An endpoint may answer later, also from a coroutine."""

        async def later(wait: Deferred[bytes]) -> Answer:
            return Answer(body=await wait)

        wait: Deferred[bytes] = Deferred()
        self.endpoint.answer = Deferred.fromCoroutine(later(wait))
        peer = self.peer().send(get())
        self.assertEqual(peer.responses(), [])
        wait.callback(b"late")
        self.assertEqual(peer.response().body, b"late")

    def test_large_answer(self) -> None:
        """An answer of many portions comes whole, and the connection goes on."""
        body = bytes(range(256)) * 4096
        self.endpoint.answer = Answer(body=body)
        peer = self.peer().send(get() + get())
        self.assertEqual([response.body == body for response in peer.responses()], [True, True])

    def test_pipelined(self) -> None:
        """Requests sent together are answered one after another, in order, each once the one before it is out."""
        waiting = Waiting()
        self.site = self.serve(Route("GET", "/{n}", waiting, "n"))
        peer = self.peer().send(get("/1") + get("/2") + get("/3"))
        self.assertEqual([parts["n"] for _, parts in waiting.calls], ["1"])
        waiting.waits[0].callback(Answer(body=b"1"))
        peer.take()
        self.assertEqual([parts["n"] for _, parts in waiting.calls], ["1", "2"])
        waiting.waits[1].callback(Answer(body=b"2"))
        peer.take()
        waiting.waits[2].callback(Answer(body=b"3"))
        self.assertEqual([response.body for response in peer.responses()], [b"1", b"2", b"3"])

    def test_empty_line_first(self) -> None:
        """One empty line before a request is ignored, as old clients send it behind a body."""
        peer = self.peer().send(b"\r\n" + get() + b"\r\n" + get())
        self.assertEqual(len(peer.responses()), 2)
        peer = self.peer().send(b"\r\n" + get(), 1)
        self.assertEqual(len(peer.responses()), 1)

    def test_close(self) -> None:
        """A client that says close gets its answer, then the connection is closed; what it sent behind is not run."""
        peer = self.peer().send(get("/get", "Connection: keep-alive, Close") + get())
        response = peer.response()
        self.assertTrue(response.closes and peer.closed)
        self.assertEqual(len(self.endpoint.calls), 1)

    def test_http_1_0(self) -> None:
        """HTTP/1.0 is answered, also without Host, and the connection is closed."""
        peer = self.peer().send(b"GET /get HTTP/1.0\r\n\r\n")
        response = peer.response()
        self.assertEqual((response.status, response.body, response.closes, peer.closed), (200, b"ok", True, True))

    def test_metrics(self) -> None:
        """Requests are counted by route, method and status; a made-up method is `other`, an unknown path is route `none`."""
        peer = self.peer().send(get() + get("/nowhere") + get("/get", method="BREW"))
        peer.take()
        self.assertEqual(self.metric("psubd_http_requests_total", route="get", method="GET", status="200"), 1)
        self.assertEqual(self.metric("psubd_http_requests_total", route="none", method="GET", status="404"), 1)
        self.assertEqual(self.metric("psubd_http_requests_total", route="none", method="other", status="405"), 1)
        self.assertEqual(self.metric("psubd_http_request_seconds_count", route="get"), 1)
        self.assertEqual(self.metric("psubd_http_connections"), 1)
        peer.lose()
        self.assertEqual(self.metric("psubd_http_connections"), 0)

    def test_two_ports_one_registry(self) -> None:
        """Both ports count into the same registry."""
        self.serve()
        self.assertEqual(self.peer().send(get()).response().status, 200)

    def test_twice(self) -> None:
        """A table with a method of a path twice, or two templates for the same paths, is refused when it is made."""
        with self.assertRaises(ValueError):
            self.serve(*self.routes(), *self.routes())
        for one, other in (("/a/{b}", "/a/{c}"), ("/a", "/a/")):
            with self.assertRaises(ValueError):
                self.serve(Route("GET", one, self.endpoint, "one"), Route("PUT", other, self.endpoint, "other"))


class Errors(WireCase):
    def test_refusal(self) -> None:
        """A PsubdError is told as a problem document with its headers, and the connection goes on."""
        self.endpoint.answer = TopicNotBound("not bound to t", record=3)
        peer = self.peer().send(get())
        response = peer.response()
        self.assertEqual(response.status, 403)
        self.assertEqual(
            response.problem,
            {
                "type": "urn:psubd:topic_not_bound",
                "title": TopicNotBound.title,
                "status": 403,
                "detail": "not bound to t",
                "code": "topic_not_bound",
                "record": 3,
            },
        )
        self.assertFalse(peer.closed)

    def test_headers_of_refusals(self) -> None:
        """401 carries its challenge, 429 what the rate is."""
        self.endpoint.answer = BadCredentials("no")
        self.assertIn("www-authenticate", self.peer().send(get()).response().headers)
        self.endpoint.answer = RateLimited("slow", 7, limit=5)
        headers = self.peer().send(get()).response().headers
        self.assertEqual((headers["retry-after"], headers["ratelimit-limit"]), (["7"], ["5"]))

    def test_later_refusal(self) -> None:
        """A Deferred that fails is told in the same way."""
        self.endpoint.answer = Deferred()
        peer = self.peer().send(get())
        self.endpoint.answer.errback(TopicNotBound("no"))
        self.assertEqual(peer.response().status, 403)

    def test_bug(self) -> None:
        """Any other exception is a 500 with the request's id and nothing of the exception, which is logged."""
        self.endpoint.answer = ZeroDivisionError("secret")
        response = self.peer().send(get("/get", "X-Request-Id: mine")).response()
        self.assertEqual((response.status, response.problem["code"]), (500, "internal"))
        self.assertIn("mine", response.problem["detail"])
        self.assertNotIn(b"secret", response.body)
        self.assertEqual(len(self.flushLoggedErrors(ZeroDivisionError)), 1)

    def test_cancelled_by_us(self) -> None:
        """An endpoint that is cancelled while its client is there is a bug, and answered."""
        waiting = Waiting()
        self.site = self.serve(Route("GET", "/get", waiting, "get"))
        peer = self.peer().send(get())
        waiting.waits[0].cancel()
        self.assertEqual(peer.response().status, 500)
        self.assertEqual(len(self.flushLoggedErrors()), 1)

    def test_bad_answers(self) -> None:
        """What would split an answer or break its framing never gets out: 500, and settled with -1: nothing was handed over."""
        bad: list[tuple[bytes, bytes]] = [
            (b"x-a", b"b\r\nset-cookie: c"),
            (b"x-a", b"b\nc"),
            (b"x-a", b"b\0"),
            (b"x a", b"b"),
            (b"X-A", b"b"),
            (b"x-a:", b"b"),
            (b"", b"b"),
            (b"x\r\ny", b"b"),
            (b"content-length", b"5"),
            (b"transfer-encoding", b"chunked"),
            (b"x-request-id", b"a"),
        ]
        for header in bad:
            settled: list[int] = []
            self.endpoint.answer = Answer(body=b"body", headers=[header], settle=settled.append)
            response = self.peer().send(get()).response()
            self.assertEqual((response.status, settled), (500, [-1]), header)
            self.assertNotIn("set-cookie", response.headers)
        for answer in (Answer(status=99), "text", Answer(headers=[("x-a", "b")])):  # type: ignore[list-item]
            self.endpoint.answer = answer
            self.assertEqual(self.peer().send(get()).response().status, 500)
        self.assertEqual(len(self.flushLoggedErrors()), len(bad) + 3)


class Methods(WireCase):
    def routes(self) -> list[Route]:
        return [
            Route("GET", "/plain", self.endpoint, "plain"),
            Route("DELETE", "/plain", self.endpoint, "gone"),
            Route("GET", "/seen", self.endpoint, "seen", head=True),
        ]

    def test_head_runs_nothing(self) -> None:
        """HEAD where GET may change something is 405, and nothing is run."""
        peer = self.peer().send(get("/plain", method="HEAD"))
        response = peer.responses("HEAD")[0]
        self.assertEqual((response.status, response.headers["allow"]), (405, ["DELETE, GET, OPTIONS"]))
        self.assertEqual(self.endpoint.calls, [])

    def test_head(self) -> None:
        """HEAD where the route says so answers as GET does, with its length and without its body; the connection goes on."""
        peer = self.peer().send(get("/seen", method="HEAD"))
        response = peer.responses("HEAD")[0]
        self.assertEqual((response.status, response.headers["content-length"], peer.raw[peer.read :]), (200, ["2"], b""))
        self.assertEqual(peer.send(get("/seen")).response().body, b"ok")

    def test_options(self) -> None:
        """OPTIONS is 204 with Allow, for a path and for the server; an unknown path is 404."""
        peer = self.peer().send(get("/plain", method="OPTIONS"))
        self.assertEqual([(r.status, r.headers["allow"]) for r in peer.responses()], [(204, ["DELETE, GET, OPTIONS"])])
        peer.send(get("/seen", method="OPTIONS"))
        self.assertEqual(peer.response().headers["allow"], ["GET, HEAD, OPTIONS"])
        peer.send(get("*", method="OPTIONS"))
        self.assertEqual(peer.response().headers["allow"], ["DELETE, GET, HEAD, OPTIONS"])
        self.refused(peer.send(get("/none", method="OPTIONS")), 404, "no_such_route", closes=False)

    def test_other_methods(self) -> None:
        """A method that the path has not is 405 with Allow; methods are case-sensitive."""
        for method in ("POST", "get", "TRACE", "PATCH", "X"):
            response = self.refused(self.peer().send(get("/plain", method=method)), 405, "method_not_allowed", closes=False)
            self.assertEqual(response.headers["allow"], ["DELETE, GET, OPTIONS"])

    def test_before_credentials_and_body(self) -> None:
        """Route and method are judged before the body is there."""
        peer = self.peer().send(get("/plain", "Content-Length: 10", method="POST"))
        self.refused(peer, 405, "method_not_allowed", closes=False)
        peer.send(b"0123456789" + get("/plain", method="OPTIONS"))
        self.assertEqual(peer.response().status, 204)


class Paths(WireCase):
    def routes(self) -> list[Route]:
        return [
            Route("GET", "/v1/pub/{topic}", self.endpoint, "topic"),
            Route("GET", "/v1/pub/{topic}/batch", self.endpoint, "batch"),
            Route("GET", "/v1/pub/fixed", Endpoint(Answer(body=b"fixed")), "fixed"),
            Route("GET", "/consumers/{group}", self.endpoint, "consumer", slash=True),
            Route("GET", "/page/", self.endpoint, "page"),
            Route("GET", "/", self.endpoint, "root"),
        ]

    def parts(self, path: str) -> dict[str, str]:
        self.endpoint.calls.clear()
        self.assertEqual(self.peer().send(get(path)).response().status, 200, path)
        return self.endpoint.calls[0][1]

    def test_parts(self) -> None:
        """Parts are percent-decoded once; a fixed path comes before one with a part."""
        self.assertEqual(self.parts("/v1/pub/a.b"), {"topic": "a.b"})
        self.assertEqual(self.parts("/v1/pub/%61%2Eb/batch"), {"topic": "a.b"})
        self.assertEqual(self.parts("/v1/pub/a%2561"), {"topic": "a%61"})
        self.assertEqual(self.parts("/v1/pub/%C3%A4+;x=1"), {"topic": "ä+;x=1"})
        self.assertEqual(self.parts("/v1/pub/%7C<b>"), {"topic": "|<b>"})
        self.assertEqual(self.parts("/"), {})
        self.assertEqual(self.peer().send(get("/v1/pub/fixed")).response().body, b"fixed")

    def test_no_such_route(self) -> None:
        """Encoded slashes, NUL, control characters, what is not UTF-8, empty parts and other paths are 404; nothing is redirected."""
        for path in (
            "/v1/pub/a%2Fb",
            "/v1/pub/a%2fbatch",
            "/v1/pub/a%00",
            "/v1/pub/a%0A",
            "/v1/pub/%FF",
            "/v1/pub/%C3",
            "/v1/pub/a%C0%AFb",
            "/v1/pub/",
            "/v1/pub",
            "/v1//pub/a",
            "//v1/pub/a",
            "/v1/pub/a//batch",
            "/v1/pub/a/",
            "/v1/pub/a/batch/",
            "/V1/pub/a",
            "/v1/pub/a/b/c",
            "/consumers/",
            "/consumers/g//",
            "/page//",
            "/none",
            "//",
        ):
            self.refused(self.peer().send(get(path)), 404, "no_such_route", closes=False)

    def test_names_of_parts(self) -> None:
        """A part may be called anything, also what Klein's own functions call their arguments."""
        self.site = self.serve(Route("GET", "/{instance}/{request}", self.endpoint, "odd"))
        self.assertEqual(self.parts("/a/b"), {"instance": "a", "request": "b"})

    def test_trailing_slash(self) -> None:
        """One trailing slash is accepted where a route says so, and where its template ends in one."""
        self.assertEqual(self.parts("/consumers/g/"), {"group": "g"})
        self.assertEqual(self.parts("/consumers/g"), {"group": "g"})
        self.assertEqual(self.parts("/page"), {})
        self.assertEqual(self.parts("/page/"), {})

    def test_absolute_target(self) -> None:
        """A target in absolute form is its path, where its host is the Host that was sent."""
        self.assertEqual(self.parts("http://PSUBD.test/v1/pub/a?b=c"), {"topic": "a"})
        self.assertEqual(self.endpoint.calls[0][0].raw_query, b"b=c")
        self.assertEqual(self.parts("http://psubd.test"), {})
        self.endpoint.calls.clear()
        for target in ("http://other/v1/pub/a", "http://u@psubd.test/v1/pub/a", "ftp://psubd.test/v1/pub/a", "psubd.test:80", "*"):
            self.refused(self.peer().send(get(target)), 400, "bad_header")


class Dialects(WireCase):
    """Errors on routes with a dialect of their own."""

    def setUp(self) -> None:
        super().setUp()

        def refusal(error: PsubdError, lines: Sequence[tuple[bytes, bytes]]) -> Answer:
            return Answer(status=error.status, body=error.code.encode() + b" %d" % len(lines), headers=[(b"content-type", b"text/own")])

        self.site = self.serve(
            Route("POST", "/own/{part}", self.endpoint, "own", max_body=10, needs_length=True, refusal=refusal),
            Route("GET", "/", self.endpoint, "root", refusal=refusal),
            Route("GET", "/v1/other", self.endpoint, "other"),
        )

    def own(self, request: bytes, status: int, code: str) -> None:
        response = self.peer().send(request).response()
        said = response.body.split()[0].decode()
        self.assertEqual((response.status, response.headers["content-type"], said), (status, ["text/own"], code))

    def test_whoever_finds_it(self) -> None:
        """The endpoint's errors, bugs, what the wire finds in a body, and paths and methods that are none below it, are told in the dialect."""
        self.endpoint.answer = fail(BadBody("x"))
        self.own(post(b"x", "/own/a"), 400, "bad_body")
        self.endpoint.answer = fail(ValueError("a bug"))
        self.own(post(b"x", "/own/a"), 500, "internal")
        self.assertEqual(len(self.flushLoggedErrors(ValueError)), 1)
        self.own(post(b"x" * 11, "/own/a"), 413, "too_large")
        self.own(b"POST /own/a HTTP/1.1\r\nHost: psubd.test\r\n\r\n", 411, "length_required")
        self.own(get("/own/a"), 405, "method_not_allowed")
        for path in ("/own", "/own/a/b", "/own//", "/own/a/", "/own/%2F"):
            self.own(get(path), 404, "no_such_route")
        self.own(post(b"x", "/"), 405, "method_not_allowed")

    def test_heads(self) -> None:
        """So is what is wrong with the head, as far as the path is there: nobody reads the rest of it."""
        for request, status, code in (
            (get("/own/a", "bad line"), 400, "bad_header"),
            (get("/own/a", "Host: again"), 400, "bad_header"),
            (get("/own/a?x=1", "Content-Length: x"), 400, "bad_header"),
            (get("/own/a", "X: " + "a" * 40_000), 431, "head_too_large"),
            (b"GET /own/" + b"a" * 20_000, 414, "too_large"),
            (b"GET /own/" + b"a" * 9_000 + b" HTTP/1.1\r\n", 414, "too_large"),
        ):
            self.own(request, status, code)
        for request in (b"get /own/a HTTP/1.1\r\n\r\n", b"GET own HTTP/1.1\r\n\r\n", b"\0\r\n", get("/v1/other", "bad line")):
            self.assertEqual(self.peer().send(request).response().headers["content-type"], ["application/problem+json"])

    def test_encoded(self) -> None:
        """A first segment that is percent-encoded is the same one."""
        self.endpoint.answer = fail(BadBody("x"))
        self.own(post(b"x", "/%6Fwn/a"), 400, "bad_body")
        self.own(get("/o%77n/a/b"), 404, "no_such_route")
        self.assertEqual(self.peer().send(get("/%256Fwn/a")).response().headers["content-type"], ["application/problem+json"])

    def test_elsewhere(self) -> None:
        """Other paths are told as ever."""
        for request in (get("/v1/other/x"), get("/owner"), get("/nowhere"), get("/v1/other", method="POST")):
            self.assertEqual(self.peer().send(request).response().headers["content-type"], ["application/problem+json"])
