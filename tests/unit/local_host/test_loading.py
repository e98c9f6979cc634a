import asyncio
import sys
import textwrap

import pytest

from deployr_serve.local_host.errors import HostSetupError
from deployr_serve.local_host.keys import AuthLevel
from deployr_serve.local_host.loading import load_app


@pytest.fixture
def loaded(tmp_path, monkeypatch):
    monkeypatch.setattr(sys, "path", list(sys.path))

    def load(source, **options):
        path = tmp_path / "function_app.py"
        path.write_text("import azure.functions as func\n" + textwrap.dedent(source))
        return load_app(path, **options)

    yield load
    sys.modules.pop("function_app", None)


def test_http_functions_are_read_with_their_triggers(loaded):
    app = loaded("""
        app = func.FunctionApp(http_auth_level=func.AuthLevel.ADMIN)

        @app.route(route="/models/{model}/infer", methods=["post", func.HttpMethod.PUT],
                   auth_level=func.AuthLevel.ANONYMOUS)
        async def infer(req: func.HttpRequest, context: func.Context) -> func.HttpResponse:
            return func.HttpResponse("x")

        @app.function_name("renamed")
        @app.route(trigger_arg_name="request")
        def plain(request):
            return "x"
    """)

    infer, plain = sorted(app.http, key=lambda each: each.name)
    assert (infer.name, infer.route, infer.methods) == ("infer", "models/{model}/infer", {"POST", "PUT"})
    assert (infer.auth_level, infer.parameter) == (AuthLevel.ANONYMOUS, "req")
    assert (infer.is_async, infer.takes_context) == (True, True)
    assert (plain.name, plain.route, plain.methods) == ("renamed", "renamed", None)
    assert (plain.auth_level, plain.parameter) == (AuthLevel.ADMIN, "request")
    assert (plain.is_async, plain.takes_context) == (False, False)
    assert plain.call(None) == "x"


def test_the_auth_level_is_function_unless_the_app_says_otherwise(loaded):
    (function,) = loaded("""
        app = func.FunctionApp()

        @app.route(route="a")
        def a(req):
            return "x"
    """).http

    assert function.auth_level is AuthLevel.FUNCTION


def test_timer_functions_are_read_with_their_triggers(loaded):
    app = loaded("""
        app = func.FunctionApp()

        @app.timer_trigger(arg_name="timer", schedule="%S%", run_on_startup=True, use_monitor=False)
        async def eager(timer: func.TimerRequest) -> None: ...

        @app.schedule(arg_name="timer", schedule="0 0 3 * * *")
        def nightly(timer: func.TimerRequest) -> None: ...
    """)

    eager, nightly = sorted(app.timers, key=lambda each: each.name)
    assert (eager.schedule, eager.run_on_startup, eager.use_monitor) == ("%S%", True, False)
    assert (nightly.schedule, nightly.run_on_startup, nightly.use_monitor) == ("0 0 3 * * *", False, True)


def test_blueprints_of_other_modules_beside_the_app_are_found(loaded, tmp_path):
    (tmp_path / "beside_the_app.py").write_text(
        textwrap.dedent("""
        import azure.functions as func
        bp = func.Blueprint()

        @bp.route(route="from-blueprint")
        def from_blueprint(req):
            return "x"
        """)
    )
    app = loaded("""
        from beside_the_app import bp
        app = func.FunctionApp()
        app.register_functions(bp)
    """)

    assert [each.route for each in app.http] == ["from-blueprint"]


def test_a_folder_stands_for_its_function_app(tmp_path, loaded):
    loaded("app = func.FunctionApp()")

    assert load_app(tmp_path).folder == tmp_path.resolve()


def test_an_app_of_any_name_will_do_when_it_is_the_only_one(loaded):
    assert loaded("anything = func.FunctionApp()\nalias = anything").functions == ()


def test_of_several_apps_the_one_called_app_is_meant_and_azures_refusal_is_told(loaded, caplog):
    app = loaded("""
        other = func.FunctionApp()
        app = func.FunctionApp()

        @app.route(route="a")
        def a(req): return "x"
    """)

    assert [each.name for each in app.functions] == ["a"]
    assert "Azure refuses that" in caplog.text


@pytest.mark.parametrize(
    ("source", "complaint"),
    [
        ("x = 1", "expected a func.FunctionApp"),
        ("a = func.FunctionApp()\nb = func.FunctionApp()", "expected one func.FunctionApp, .* found a, b"),
        ("raise KeyError('EPIC_CLIENT_ID')", "could not be imported: KeyError: 'EPIC_CLIENT_ID'"),
        ("import no_such_module_at_all", "could not be imported: ModuleNotFoundError"),
        ("def (", "could not be imported: SyntaxError"),
        (
            """
            app = func.FunctionApp()
            @app.route(route="a")
            def a(request): return "x"
            """,
            "function a: expected a parameter req, which its trigger names",
        ),
        (
            """
            app = func.FunctionApp()
            @app.route(route="a")
            def a(req, stranger): return "x"
            """,
            "function a: no binding gives its parameter stranger a value",
        ),
        (
            """
            app = func.FunctionApp()
            @app.route(route="a")
            def _hidden(req): return "x"
            """,
            "function _hidden: expected a name of letters",
        ),
        (
            """
            app = func.FunctionApp()
            @app.route(route="a")
            def same(req): return "x"
            @app.function_name("Same")
            @app.route(route="b")
            def other(req): return "x"
            """,
            "function same: expected a name of its own",
        ),
        (
            """
            app = func.FunctionApp()
            def a(req): return "x"
            app.function_name("a")(a)
            """,
            "function_app.py: .*does not have a trigger",
        ),
    ],
)
def test_an_app_that_cannot_be_run_is_refused_with_what_was_expected(loaded, source, complaint):
    with pytest.raises(HostSetupError, match=complaint):
        loaded(source)


def test_no_file_is_refused_by_its_path(tmp_path):
    with pytest.raises(HostSetupError, match=r"function_app\.py: expected a function_app\.py"):
        load_app(tmp_path)


UNSUPPORTED = """
    app = func.FunctionApp()

    @app.blob_trigger(arg_name="message", path="p", connection="C")
    def drain(message): ...

    @app.route(route="enqueue")
    @app.queue_output(arg_name="out", queue_name="q", connection="C")
    def enqueue(req, out): return "x"

    @app.route(route="plain")
    def plain(req): return "x"
"""


def test_unsupported_triggers_and_bindings_are_all_refused_by_name(loaded):
    with pytest.raises(HostSetupError) as refused:
        loaded(UNSUPPORTED)

    assert "function drain: trigger blobTrigger is not supported here" in str(refused.value)
    assert "function enqueue: binding queue (parameter out) is not supported here" in str(refused.value)
    assert "--skip-unsupported" in str(refused.value)


def test_unsupported_functions_are_left_out_with_a_warning_on_request(loaded, caplog):
    app = loaded(UNSUPPORTED, skip_unsupported=True)

    assert [each.name for each in app.functions] == ["plain"]
    assert "function drain: trigger blobTrigger" in caplog.text
    assert "function enqueue: binding queue" in caplog.text


async def test_an_app_is_imported_with_the_loop_running(loaded):
    loaded("""
        import asyncio
        app = func.FunctionApp()
        app.loop = asyncio.get_running_loop()
    """)

    assert sys.modules["function_app"].app.loop is asyncio.get_running_loop()
