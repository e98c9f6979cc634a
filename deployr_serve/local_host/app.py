"""The whole host as one ASGI app: the functions, and the admin API."""

from collections.abc import Sequence

from starlette.applications import Starlette
from starlette.middleware.cors import CORSMiddleware
from starlette.types import ASGIApp, Receive, Scope, Send

from deployr_serve.local_host.admin import AdminApi
from deployr_serve.local_host.host_json import HostJson
from deployr_serve.local_host.http import MAX_BODY_BYTES, FunctionsEndpoint
from deployr_serve.local_host.invocation import BackgroundRuns, Invoker
from deployr_serve.local_host.keys import HostKeys
from deployr_serve.local_host.loading import LoadedApp
from deployr_serve.local_host.queue_runner import QueueRunners
from deployr_serve.local_host.routes import routes_for
from deployr_serve.local_host.timers import Timers


class HostApp:
    """Gives what is under ``/admin/`` to the admin API, and all else to the functions.

    Not by Starlette's own routing: its layers around each request would be a hundredth of an answer.
    """

    def __init__(self, *, admin: ASGIApp, functions: ASGIApp) -> None:
        self._admin = admin
        self._functions = functions

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer one request."""
        is_admin = scope["path"].startswith("/admin/")
        await (self._admin if is_admin else self._functions)(scope, receive, send)


def create_app(
    *,
    app: LoadedApp,
    host_json: HostJson,
    keys: HostKeys,
    invoker: Invoker,
    timers: Timers,
    queues: QueueRunners,
    background: BackgroundRuns,
    max_body_bytes: int = MAX_BODY_BYTES,
    cors: Sequence[str] = (),
) -> HostApp:
    """Build the ASGI app of a host; nothing in it starts a timer.

    ``cors``: the origins whose pages may call the functions, never with cookies. As Azure's platform does it, the
    app's functions see no preflight request, and every answer to such a page can be read by it, errors as well.

    Raises:
        HostSetupError: a function's route cannot be read.
    """
    admin = AdminApi(
        app=app,
        route_prefix=host_json.route_prefix,
        keys=keys,
        invoker=invoker,
        timers=timers,
        queues=queues,
        background=background,
        max_body_bytes=max_body_bytes,
    )
    functions = FunctionsEndpoint(
        routes=routes_for(app.http, prefix=host_json.route_prefix),
        keys=keys,
        invoker=invoker,
        max_body_bytes=max_body_bytes,
    )
    served: ASGIApp = functions
    if cors:
        served = CORSMiddleware(functions, allow_origins=cors, allow_methods=["*"], allow_headers=["*"])
    return HostApp(admin=Starlette(routes=admin.routes()), functions=served)
