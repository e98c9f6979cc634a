"""HTTP functions: bytes in, bytes out."""

import json

import pytest

FUNCTION = {"x-functions-key": "function-key"}
MASTER = {"x-functions-key": "master-key"}

ECHO = """
    import json
    app = func.FunctionApp(http_auth_level=func.AuthLevel.ANONYMOUS)

    @app.route(route="models/{model}/infer/{version:int?}", methods=["GET", "POST"])
    async def infer(req: func.HttpRequest, context: func.Context) -> func.HttpResponse:
        return func.HttpResponse(
            json.dumps({
                "method": req.method, "url": req.url, "params": dict(req.params),
                "route": dict(req.route_params), "body": req.get_body().decode(),
                "x-a": req.headers.get("X-A"), "function": context.function_name,
                "trace": context.trace_context.trace_parent,
            }),
            mimetype="application/json",
        )
"""


async def test_a_function_sees_the_request_as_it_was_sent(host):
    reply = await host(ECHO)(
        "POST",
        "/api/models/sep%20sis/infer/3?a=1&a=2&b=%C3%BC",
        headers=[("X-A", "1"), ("X-A", "2"), ("traceparent", "00-aa-bb-01")],
        chunks=[b'{"half', b'":1}'],
    )

    assert reply.status == 200
    assert reply.header("content-type") == ["application/json"]
    assert reply.header("content-length") == [str(len(reply.body))]
    assert json.loads(reply.body) == {
        "method": "POST",
        "url": "http://emr.test/api/models/sep%20sis/infer/3?a=1&a=2&b=%C3%BC",
        "params": {"a": "1,2", "b": "ü"},
        "route": {"model": "sep sis", "version": "3"},
        "body": '{"half":1}',
        "x-a": "1,2",
        "function": "infer",
        "trace": "00-aa-bb-01",
    }


async def test_a_text_is_answered_as_plain_text(host):
    reply = await host("""
        app = func.FunctionApp(http_auth_level=func.AuthLevel.ANONYMOUS)

        @app.route(route="hello")
        def hello(req): return "grüezi"
    """)("GET", "/api/hello")

    assert (reply.status, reply.body.decode()) == (200, "grüezi")
    assert reply.header("content-type") == ["text/plain; charset=utf-8"]


async def test_sync_and_async_functions_of_blueprints_are_served(host):
    call = host(
        """
        import threading
        from first_blueprint import bp
        app = func.FunctionApp(http_auth_level=func.AuthLevel.ANONYMOUS)
        app.register_functions(bp)

        @app.route(route="sync")
        def sync(req):
            return str(threading.current_thread() is threading.main_thread())
        """,
        modules={
            "first_blueprint": """
            import threading
            bp = func.Blueprint()

            @bp.route(route="async")
            async def from_blueprint(req):
                return str(threading.current_thread() is threading.main_thread())
            """
        },
    )

    assert (await call("GET", "/api/sync")).body == b"False"
    assert (await call("GET", "/api/async")).body == b"True"


LEVELS = """
    app = func.FunctionApp()

    @app.route(route="open", auth_level=func.AuthLevel.ANONYMOUS)
    def opened(req): return "in"

    @app.route(route="keyed")
    def keyed(req): return "in"

    @app.route(route="master", auth_level=func.AuthLevel.ADMIN)
    def master(req): return "in"
"""


@pytest.mark.parametrize(
    ("target", "headers", "status"),
    [
        ("/api/open", {}, 200),
        ("/api/keyed", {}, 401),
        ("/api/keyed", {"x-functions-key": "wrong"}, 401),
        ("/api/keyed", FUNCTION, 200),
        ("/api/keyed", MASTER, 200),
        ("/api/keyed?code=function-key", {}, 200),
        ("/api/keyed?code=wrong&code=function-key", {}, 401),
        ("/api/keyed?code=function-key", {"x-functions-key": "wrong"}, 401),
        ("/api/master", FUNCTION, 401),
        ("/api/master?code=function-key", {}, 401),
        ("/api/master", MASTER, 200),
    ],
)
async def test_the_auth_level_decides_which_key_is_needed(host, target, headers, status):
    reply = await host(LEVELS)("GET", target, headers=headers)

    assert reply.status == status
    assert reply.body == (b"in" if status == 200 else b"")


async def test_an_unknown_path_is_404_with_or_without_a_key(host):
    call = host(LEVELS)

    for target in ("/api/nothing", "/open", "/api", "/api/open/more", "/nothing"):
        assert (await call("GET", target, headers=MASTER)).status == 404


async def test_a_wrong_method_is_405_and_says_which_would_do(host):
    reply = await host(ECHO)("DELETE", "/api/models/sepsis/infer")

    assert (reply.status, reply.body) == (405, b"")
    assert reply.header("allow") == ["GET, HEAD, OPTIONS, POST"]


async def test_options_says_which_methods_would_do_without_running_the_function(host):
    reply = await host(ECHO)("OPTIONS", "/api/models/sepsis/infer")

    assert (reply.status, reply.body) == (204, b"")
    assert reply.header("allow") == ["GET, HEAD, OPTIONS, POST"]


async def test_head_is_answered_where_get_is_with_the_length_and_without_the_body(host):
    call = host(ECHO)
    got = await call("GET", "/api/models/sepsis/infer", headers={"traceparent": "00-aa-bb-01"})
    head = await call("HEAD", "/api/models/sepsis/infer", headers={"traceparent": "00-aa-bb-01"})

    assert (head.status, head.body) == (200, b"")
    assert head.header("content-length") == [str(len(got.body) + len("HEAD") - len("GET"))]


async def test_root_shows_a_small_page_unless_a_function_is_there(host):
    page = await host("app = func.FunctionApp()")("GET", "/")
    own = await host(
        """
        app = func.FunctionApp(http_auth_level=func.AuthLevel.ANONYMOUS)

        @app.route(route="{*rest}")
        def root(req): return "mine"
        """,
        host_json='{"version": "2.0", "extensions": {"http": {"routePrefix": ""}}}',
    )("GET", "/")

    assert (page.status, b"up and running" in page.body) == (200, True)
    assert own.body == b"mine"


async def test_a_route_prefix_moves_the_functions(host):
    call = host(ECHO, host_json='{"version": "2.0", "extensions": {"http": {"routePrefix": "v1/fhir"}}}')

    assert (await call("GET", "/v1/fhir/models/sepsis/infer")).status == 200
    assert (await call("GET", "/api/models/sepsis/infer")).status == 404


async def test_repeated_headers_of_a_response_all_arrive(host):
    reply = await host("""
        app = func.FunctionApp(http_auth_level=func.AuthLevel.ANONYMOUS)

        @app.route(route="cookies")
        def cookies(req):
            response = func.HttpResponse(status_code=302, headers={"Location": "/x"})
            response.headers.add("Set-Cookie", "a=1; HttpOnly")
            response.headers.add("Set-Cookie", "b=2")
            return response
    """)("GET", "/api/cookies")

    assert reply.status == 302
    assert reply.header("location") == ["/x"]
    assert reply.header("set-cookie") == ["a=1; HttpOnly", "b=2"]


FAILURES = """
    import asyncio
    app = func.FunctionApp(http_auth_level=func.AuthLevel.ANONYMOUS)

    @app.route(route="raises")
    async def raises(req): raise LookupError("no patient " + req.params["mrn"])

    @app.route(route="raises-sync")
    def raises_sync(req): raise LookupError("no patient " + req.params["mrn"])

    @app.route(route="none")
    def none(req): return None

    @app.route(route="dictionary")
    def dictionary(req): return {"mrn": req.params["mrn"]}

    @app.route(route="header")
    def header(req): return func.HttpResponse("x", headers={"X-A": "日本" + req.params["mrn"]})

    @app.route(route="forever")
    async def forever(req): await asyncio.Event().wait()

    @app.route(route="exits")
    async def exits(req): raise SystemExit(req.params["mrn"])
"""


@pytest.mark.parametrize("path", ["raises", "raises-sync", "none", "dictionary", "header", "forever", "exits"])
async def test_a_failure_is_an_empty_500_and_no_log_shows_a_patient(host, caplog, path):
    call = host(FAILURES, host_json='{"version": "2.0", "functionTimeout": "00:00:00.0010000"}')

    with caplog.at_level("DEBUG"):
        reply = await call("POST", f"/api/{path}?mrn=E123456", body=b"E123456", headers={"x-mrn": "E123456"})

    assert (reply.status, reply.body) == (500, b"")
    assert f"function={path.replace('-', '_')}" in caplog.text
    assert "E123456" not in caplog.text


async def test_a_body_over_the_limit_is_413_however_it_is_sent(host):
    call = host(ECHO, max_body_bytes=8)
    target = "/api/models/sepsis/infer"

    assert (await call("POST", target, body=b"12345678")).status == 200
    assert (await call("POST", target, body=b"", headers={"content-length": "9"})).status == 413
    assert (await call("POST", target, chunks=[b"12345", b"6789"])).status == 413


async def test_the_limit_of_a_body_is_the_setting_of_the_real_host(host):
    call = host(ECHO, settings={"FUNCTIONS_REQUEST_BODY_SIZE_LIMIT": "3"})

    assert (await call("POST", "/api/models/sepsis/infer", body=b"1234")).status == 413


async def test_a_key_is_asked_for_before_the_body_is_read(host):
    reply = await host(LEVELS, max_body_bytes=1)("POST", "/api/keyed", body=b"1234")

    assert reply.status == 401


# -- pages of other origins

SANDBOX = "https://sandbox.example"
COUNTED = """
    app = func.FunctionApp(http_auth_level=func.AuthLevel.FUNCTION)
    seen = []

    @app.route(route="hello", methods=["GET", "OPTIONS"])
    def hello(req):
        seen.append(req.method)
        return ",".join(seen)
"""


def preflight(origin):
    asks = {"Access-Control-Request-Method": "POST", "Access-Control-Request-Headers": "authorization,content-type"}
    return {"Origin": origin, **asks}


async def test_the_preflight_of_a_named_origin_is_answered_without_the_function(host):
    call = host(COUNTED, cors=[SANDBOX])
    reply = await call("OPTIONS", "/api/hello", headers=preflight(SANDBOX))
    assert reply.status == 200
    assert reply.header("access-control-allow-origin") == [SANDBOX]
    assert "POST" in reply.header("access-control-allow-methods")[0]
    assert reply.header("access-control-allow-headers") == ["authorization,content-type"]
    assert reply.header("access-control-allow-credentials") == []
    assert (await call("GET", "/api/hello", headers=FUNCTION)).body == b"GET"


@pytest.mark.parametrize(("path", "status"), [("/api/hello", 401), ("/api/nowhere", 404)])
async def test_a_page_of_a_named_origin_can_read_errors_too(host, path, status):
    reply = await host(COUNTED, cors=[SANDBOX])("GET", path, headers={"Origin": SANDBOX})
    assert (reply.status, reply.header("access-control-allow-origin")) == (status, [SANDBOX])


@pytest.mark.parametrize("origin", ["https://evil.example", "https://sandbox.example.evil.example", "null"])
async def test_a_page_of_another_origin_can_read_nothing(host, origin):
    call = host(COUNTED, cors=[SANDBOX])
    assert (await call("OPTIONS", "/api/hello", headers=preflight(origin))).status == 400
    for headers in (preflight(origin), {"Origin": origin, **FUNCTION}):
        method = "OPTIONS" if len(headers) > 2 else "GET"
        reply = await call(method, "/api/hello", headers=headers)
        assert reply.header("access-control-allow-origin") == []


async def test_the_admin_api_is_for_no_page(host):
    reply = await host(COUNTED, cors=[SANDBOX])("GET", "/admin/functions", headers={"Origin": SANDBOX, **MASTER})
    assert (reply.status, reply.header("access-control-allow-origin")) == (200, [])
