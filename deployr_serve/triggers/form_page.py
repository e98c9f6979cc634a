"""A model's form as HTML: one page without script, pictures or anything from elsewhere.

Nothing of what was typed goes anywhere but back into the page.
"""

from __future__ import annotations

import base64
import hashlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from html import escape
from string import Template
from urllib.parse import parse_qsl

from deployr_core.facts import Sex
from deployr_serve.core.errors import MalformedRequest, RequestTooLarge, UnsupportedMediaType
from deployr_serve.core.form import AGE, OLDEST, SEX, Field, Form, in_range
from deployr_serve.triggers.json_request import HttpAnswer

MAX_BODY_BYTES = 64 * 1024
_FORM = "application/x-www-form-urlencoded"

_STYLE = """
*{box-sizing:border-box}
body{margin:0 auto;max-width:44rem;padding:1rem;font:1rem/1.5 system-ui,sans-serif;color:#1b1b1b;background:#fff}
h1{font-size:1.5rem}
fieldset{margin:0 0 1rem;padding:.5rem 1rem;border:1px solid #595959;min-width:0}
p{margin:.5rem 0;overflow-wrap:anywhere}
label{display:block;font-weight:600}
.hint{color:#4a4a4a;font-size:.9rem}
.error{color:#a4000f;font-weight:600}
input,select,button{font:inherit;color:inherit;max-width:100%;padding:.4rem;border:1px solid #595959;background:#fff}
button{padding:.6rem 1.5rem;font-weight:600;border-width:2px}
:focus-visible{outline:3px solid #0b57d0;outline-offset:2px}
[aria-invalid]{border:2px solid #a4000f}
.told{border-left:.4rem solid #0b57d0;padding:.1rem 1rem;margin:1rem 0}
.score{font-size:1.75rem;font-weight:700}
"""
_DIGEST = base64.b64encode(hashlib.sha256(_STYLE.encode()).digest()).decode()
HEADERS: Mapping[str, str] = {
    "Content-Security-Policy": (
        f"default-src 'none'; style-src 'sha256-{_DIGEST}'; form-action 'self'; base-uri 'none'; frame-ancestors 'none'"
    ),
    "Cache-Control": "no-store",
    "Referrer-Policy": "no-referrer",  # the address may carry a key
    "X-Content-Type-Options": "nosniff",
}

_PAGE = Template(
    '<!doctype html><html lang="en"><head><meta charset="utf-8">'
    '<meta name="viewport" content="width=device-width,initial-scale=1">'
    "<title>$title</title><style>$style</style></head><body><main><h1>$title</h1>$content</main></body></html>"
)
_INPUT = Template(
    '<p><label for="$name">$label</label>'
    '<input id="$name" name="$name" inputmode="decimal" autocomplete="off" value="$value"$marks> $unit'
    '<br><span class="hint" id="$name-hint">$hint</span>$error</p>'
)
_NOT_STORED = (
    "<p>Nothing that is typed here is stored, and no score is: this is for trying the model out, and not for the "
    "record. Leave empty what is not known.</p>"
)


@dataclass(frozen=True, kw_only=True, slots=True)
class Told:
    """What came of it: a ``score`` in words with ``reasons``, the largest first; or why there is none."""

    score: str | None
    reasons: Sequence[str] = ()
    why_none: str = ""


def parse_form(body: bytes, *, content_type: str | None) -> dict[str, str]:
    """Read what a browser sends.

    Raises:
        UnsupportedMediaType, RequestTooLarge, MalformedRequest: it is not what a form sends.
    """
    if (content_type or "").partition(";")[0].strip().lower() != _FORM:
        raise UnsupportedMediaType(f"expected Content-Type: {_FORM}")
    if len(body) > MAX_BODY_BYTES:
        raise RequestTooLarge(f"expected a body of at most {MAX_BODY_BYTES} bytes")
    try:
        pairs = parse_qsl(body.decode("ascii"), keep_blank_values=True, errors="strict", max_num_fields=200)
    except ValueError:
        raise MalformedRequest("expected the fields of the form, in UTF-8") from None
    given = dict(pairs)
    if len(given) != len(pairs):
        raise MalformedRequest("expected each field of the form once")
    return given


def render_form(
    form: Form,
    *,
    model_id: str,
    status: int = 200,
    given: Mapping[str, str] | None = None,
    problems: Mapping[str, str] | None = None,
    told: Told | None = None,
) -> HttpAnswer:
    """Render the form with what was typed, what is wrong with it next to each field, and what came of it."""
    given, problems = given or {}, problems or {}
    who = ""
    if form.asks_age:
        who += _input(AGE, "Age", "years", f"A whole number from 0 to {OLDEST}", given, problems)
    if form.asks_sex:
        who += _sex(given.get(SEX, ""), problems.get(SEX))
    parts = [
        *([("Patient", who)] if who else []),
        ("Latest laboratory results", _tests([each for each in form.fields if not each.is_vital], given, problems)),
        ("Latest vital signs", _tests([each for each in form.fields if each.is_vital], given, problems)),
    ]
    sets = "".join(f"<fieldset><legend>{legend}</legend>{inner}</fieldset>" for legend, inner in parts if inner)
    wrong = ""
    if problems:
        wrong = f'<p class="error" role="alert">Not scored: see the fields marked below ({len(problems)}).</p>'
    # Without an action it goes to the page's own address, and so with the key that opened the page.
    asked = f'<form method="post" novalidate>{sets}<p><button type="submit">Score</button></p></form>'
    return _page(f"Try {model_id}", _told(told) + wrong + _NOT_STORED + asked, status=status)


def render_refusal(why: str, *, status: int) -> HttpAnswer:
    """Render a page that says why there is no form, or no score."""
    return _page("No score", f'<p role="alert">{escape(why)}</p>', status=status)


def _told(told: Told | None) -> str:
    if told is None:
        return ""
    if told.score is None:
        return f'<section class="told" role="status"><h2>No score</h2><p>{escape(told.why_none)}</p></section>'
    reasons = "".join(f"<li>{escape(each)}</li>" for each in told.reasons)
    listed = f"<p>What weighed most:</p><ol>{reasons}</ol>" if reasons else ""
    return (
        f'<section class="told" role="status"><h2>Score</h2><p class="score">{escape(told.score)}</p>{listed}</section>'
    )


def _tests(fields: Sequence[Field], given: Mapping[str, str], problems: Mapping[str, str]) -> str:
    return "".join(
        _input(each.name, each.label, each.unit, in_range(each).capitalize(), given, problems) for each in fields
    )


def _input(name: str, label: str, unit: str, hint: str, given: Mapping[str, str], problems: Mapping[str, str]) -> str:
    marks, error = _marked(name, problems.get(name))
    return _INPUT.substitute(
        name=name,
        label=escape(label),
        unit=escape(unit),
        hint=escape(hint + (f", in {unit}" if unit else "")),
        value=escape(given.get(name, "")),
        marks=marks,
        error=error,
    )


def _sex(chosen: str, problem: str | None) -> str:
    options = "".join(
        f'<option value="{value}"{" selected" if value == chosen else ""}>{text}</option>'
        for value, text in (("", "not known"), *((sex.value, sex.value) for sex in Sex if sex is not Sex.UNKNOWN))
    )
    marks, error = _marked(SEX, problem)
    hint = f'<br><span class="hint" id="{SEX}-hint">As in the record</span>'
    return (
        f'<p><label for="{SEX}">Sex</label><select id="{SEX}" name="{SEX}"{marks}>{options}</select>{hint}{error}</p>'
    )


def _marked(name: str, problem: str | None) -> tuple[str, str]:
    if problem is None:
        return f' aria-describedby="{name}-hint"', ""
    marks = f' aria-describedby="{name}-hint {name}-error" aria-invalid="true"'
    return marks, f'<br><span class="error" id="{name}-error">{escape(problem)}</span>'


def _page(title: str, content: str, *, status: int) -> HttpAnswer:
    body = _PAGE.substitute(title=escape(title), style=_STYLE, content=content)
    return HttpAnswer(status=status, body=body.encode(), content_type="text/html", headers=dict(HEADERS))
