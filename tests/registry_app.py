"""What stands for the app's registry over HTTP: it answers every deed alike, and keeps what it was asked."""

from __future__ import annotations

import json
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, HTTPServer
from typing import Any

Asked = list[tuple[str, dict[str, str], dict[str, Any]]]
Answer = Callable[[BaseHTTPRequestHandler], None]


@contextmanager
def app(answer: Answer) -> Iterator[tuple[str, Asked]]:
    """Run it, and give its address and the path, headers and body of each request; ``answer`` writes to one."""
    asked: Asked = []

    class Handler(BaseHTTPRequestHandler):
        def do_POST(self) -> None:  # the library's name
            body = self.rfile.read(int(self.headers["Content-Length"]))
            asked.append((self.path, dict(self.headers), json.loads(body)))
            answer(self)

        def log_message(self, *_: object) -> None:
            pass

    with HTTPServer(("127.0.0.1", 0), Handler) as server:
        thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01})
        thread.start()
        try:
            yield f"http://127.0.0.1:{server.server_port}/", asked
        finally:
            server.shutdown()
            thread.join()


def refuses(request: BaseHTTPRequestHandler) -> None:
    """Answer as to somebody without the role."""
    says(request, 403, {"reason": "not-your-role", "said": "to reject takes the role approver; ada is viewer"})


def says(request: BaseHTTPRequestHandler, status: int, told: dict[str, Any]) -> None:
    """Answer this."""
    body = json.dumps(told).encode()
    request.send_response(status)
    request.send_header("Content-Length", str(len(body)))
    request.end_headers()
    request.wfile.write(body)


def redirects(request: BaseHTTPRequestHandler) -> None:
    """Send elsewhere."""
    request.send_response(307)
    request.send_header("Location", "/elsewhere")
    request.send_header("Content-Length", "0")
    request.end_headers()


def hangs_up(request: BaseHTTPRequestHandler) -> None:
    """Answer nothing."""
    request.close_connection = True
