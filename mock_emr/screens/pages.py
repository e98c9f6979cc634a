"""A template and what it shows to a page that may fetch nothing from elsewhere."""

from __future__ import annotations

from collections.abc import Mapping
from datetime import datetime
from importlib.resources import files
from urllib.parse import parse_qsl, urlsplit

from jinja2 import Environment, PackageLoader, StrictUndefined
from starlette.requests import Request
from starlette.responses import RedirectResponse, Response

from mock_emr.clock import EmrClock

HEADERS: Mapping[str, str] = {
    "Content-Security-Policy": (
        "default-src 'none'; style-src 'self'; script-src 'self'; img-src data:; form-action 'self'; "
        "base-uri 'none'; frame-ancestors 'none'"
    ),
    "Cache-Control": "no-store",
    "Referrer-Policy": "same-origin",  # with none at all, browsers do not say which site a form came from
    "X-Content-Type-Options": "nosniff",
}
_STATIC = {"screens.css": "text/css", "screens.js": "text/javascript"}
_LONGEST_FORM = 64 * 1024


class FormRefused(ValueError):
    """The form is not one of ours, or not as a browser sends it."""


class Pages:
    """Renders the templates; each page says what time it is in the EMR."""

    def __init__(self, clock: EmrClock) -> None:
        self._clock = clock
        self._templates = Environment(
            loader=PackageLoader("mock_emr.screens"),
            autoescape=True,
            undefined=StrictUndefined,
            trim_blocks=True,
            lstrip_blocks=True,
        )
        self._templates.filters |= {"minute": _minute, "second": _second, "iso": datetime.isoformat}

    def page(self, template: str, *, status: int = 200, **shown: object) -> Response:
        """Render a page; everything in ``shown`` is text, and escaped."""
        clock = {"now": self._clock.now(), "is_put": self._clock.is_put(), "pace": self._clock.pace()}
        text = self._templates.get_template(f"{template}.html.j2").render(clock=clock, **shown)
        return Response(text, status_code=status, media_type="text/html", headers=HEADERS)

    def missing(self, what: str) -> Response:
        """Say that there is no such thing."""
        return self.page("missing", status=404, what=what)


def go(address: str) -> Response:
    """Send the browser on with a GET, as is right after a form."""
    return RedirectResponse(address, status_code=303, headers=HEADERS)


async def static(request: Request) -> Response:
    """Give the one style sheet, or the one script."""
    name = str(request.path_params["file"])
    if name not in _STATIC:
        return Response(status_code=404)
    body = files("mock_emr.screens").joinpath("static", name).read_bytes()
    headers = {"Cache-Control": "no-cache", "X-Content-Type-Options": "nosniff"}
    return Response(body, media_type=_STATIC[name], headers=headers)


async def form_of(request: Request) -> dict[str, str]:
    """Read a form that one of our pages sent.

    Raises:
        FormRefused: another site's page sent it, or it is too long or no form. Nobody logs in to the mock, so any page
            that is open in the same browser could otherwise press its buttons.
    """
    origin = request.headers.get("origin")
    if origin is not None and urlsplit(origin).netloc != request.headers.get("host"):
        raise FormRefused("expected a form of this EMR's own pages")
    body = await request.body()
    if len(body) > _LONGEST_FORM:
        raise FormRefused(f"expected a form of at most {_LONGEST_FORM} bytes")
    try:
        return dict(parse_qsl(body.decode("ascii"), keep_blank_values=True, errors="strict", max_num_fields=200))
    except ValueError as error:
        raise FormRefused("expected the fields of a form, in UTF-8") from error


def _minute(instant: datetime) -> str:
    return f"{instant:%Y-%m-%d %H:%M}"


def _second(instant: datetime) -> str:
    return f"{instant:%Y-%m-%d %H:%M:%S}"
