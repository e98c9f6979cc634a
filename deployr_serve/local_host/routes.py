"""Which function answers a method and a path."""

import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from urllib.parse import unquote

from deployr_serve.local_host.errors import HostSetupError
from deployr_serve.local_host.loading import HttpFunction

_PARAMETER = re.compile(r"\{(\*{0,2})([A-Za-z_]\w*)((?::[^{}?]+)*)(\?)?\}")

_CONSTRAINTS = {
    "int": r"[+-]?\d{1,10}",
    "long": r"[+-]?\d{1,19}",
    "bool": r"(?:true|false)",
    "alpha": r"[a-z]+",
    "guid": r"\{?[0-9a-f]{8}-?(?:[0-9a-f]{4}-?){3}[0-9a-f]{12}\}?",
    "decimal": r"[+-]?\d+(?:\.\d+)?",
    "double": r"[+-]?\d+(?:\.\d+)?(?:e[+-]?\d+)?",
    "float": r"[+-]?\d+(?:\.\d+)?(?:e[+-]?\d+)?",
    "required": r"[^/]+",
}


@dataclass(frozen=True, kw_only=True)
class Route:
    """A function at its place.

    Attributes:
        template: with the prefix, without outer slashes, as written.
        pattern: matches a decoded path without outer slashes, whatever its capitals.
        precedence: a route of smaller precedence is tried first.
    """

    function: HttpFunction
    template: str
    pattern: re.Pattern[str]
    precedence: tuple[int, ...]


@dataclass(frozen=True, kw_only=True)
class Matched:
    """A function and the values in the path that its route names."""

    function: HttpFunction
    route_params: Mapping[str, str]


@dataclass(frozen=True, kw_only=True)
class WrongMethod:
    """There is something at that path, but not for that method.

    Attributes:
        allow: the methods that would do, in order of the alphabet.
    """

    allow: tuple[str, ...]


@dataclass(frozen=True, kw_only=True)
class NotThere:
    """Nothing is at that path."""


Resolution = Matched | WrongMethod | NotThere


def routes_for(functions: Iterable[HttpFunction], *, prefix: str) -> tuple[Route, ...]:
    """The routes of an app, in the order in which they are tried.

    Literal segments go before parameters, constrained ones before others, catch-alls last; among equals the
    app's order counts.

    Raises:
        HostSetupError: a template cannot be read, or begins with the host's own ``admin``.

    Source: Microsoft Learn, "Routing in ASP.NET Core", sections "Route templates", "Route constraints" and
    "Route template precedence"; "Azure Functions HTTP trigger", section "Customize the HTTP endpoint".
    """
    routes = [_route(each, prefix=prefix) for each in functions]
    return tuple(sorted(routes, key=lambda route: route.precedence))


def resolve(routes: Iterable[Route], *, method: str, raw_path: bytes) -> Resolution:
    """Find who answers. A function that takes GET takes HEAD too.

    Args:
        routes: in the order in which they are tried.
        method: in capitals.
        raw_path: as sent, percent-encoded, without the query.

    Source: azure-functions-host, ``WebScriptHostHttpRoutesManager.BuildConstraintMethods`` (HEAD).
    """
    path = decoded(raw_path).removeprefix("/").removesuffix("/")
    allowed: set[str] = set()
    for route in routes:
        matched = route.pattern.fullmatch(path)
        if matched is None:
            continue
        methods = _accepted(route.function)
        if methods is None or method in methods:
            values = {name: value for name, value in matched.groupdict().items() if value is not None}
            return Matched(function=route.function, route_params=values)
        allowed |= methods
    return WrongMethod(allow=tuple(sorted(allowed))) if allowed else NotThere()


def decoded(raw_path: bytes) -> str:
    """A path with its percent-encoding undone, but for ``%2F``, which is no separator.

    Source: Kestrel's ``UrlDecoder`` leaves ``%2F`` as it is.
    """
    text = raw_path.partition(b"?")[0].decode("latin-1")
    return unquote(re.sub(r"%2[fF]", "%252F", text), errors="replace")


def _accepted(function: HttpFunction) -> frozenset[str] | None:
    methods = function.methods
    return methods | {"HEAD"} if methods and "GET" in methods else methods


def _route(function: HttpFunction, *, prefix: str) -> Route:
    template = "/".join(part for part in (prefix, function.route) if part)
    if template.lower().partition("/")[0] == "admin":
        raise HostSetupError(f"function {function.name}: route {template!r}: admin is the host's own")
    pattern = ""
    precedence: list[int] = []
    segments = template.split("/") if template else []
    for index, segment in enumerate(segments):
        rank, text, optional = _segment(segment, function=function, template=template)
        if (rank == _CATCH_ALL or optional) and index != len(segments) - 1:
            raise HostSetupError(f"function {function.name}: route {template!r}: {segment} is expected to come last")
        slash = "/" if index else ""
        if rank == _CATCH_ALL or optional:
            pattern += f"(?:{slash}{text})?"
        else:
            pattern += slash + text
        precedence.append(rank)
    try:
        compiled = re.compile(pattern, re.IGNORECASE | re.ASCII | re.DOTALL)
    except re.error as error:
        raise HostSetupError(
            f"function {function.name}: route {template!r}: expected each parameter once: {error}"
        ) from error
    return Route(function=function, template=template, pattern=compiled, precedence=tuple(precedence))


_LITERAL, _MIXED, _CONSTRAINED, _FREE, _CATCH_ALL = range(5)


def _segment(segment: str, *, function: HttpFunction, template: str) -> tuple[int, str, bool]:
    """One segment of a template: its rank, its pattern, and whether it may be absent."""
    whole = _PARAMETER.fullmatch(segment)
    if whole:
        stars, name, constraints, mark = whole.groups()
        checks = _checks(constraints, function=function, template=template)
        end = "$" if stars else "(?:/|$)"
        pattern = "".join(f"(?={check}{end})" for check in checks)
        pattern += f"(?P<{name}>{'.+' if stars else '[^/]+'})"
        rank = _CATCH_ALL if stars else _CONSTRAINED if checks else _FREE
        return rank, pattern, bool(mark)
    pattern, at = "", 0
    for found in _PARAMETER.finditer(segment):
        stars, name, constraints, mark = found.groups()
        checks = _checks(constraints, function=function, template=template)
        if stars or mark or len(checks) > 1:
            raise HostSetupError(
                f"function {function.name}: route {template!r}: {found.group()} is expected to be a segment of its own"
            )
        pattern += re.escape(segment[at : found.start()]) + f"(?P<{name}>{checks[0] if checks else '[^/]+?'})"
        at = found.end()
    rest = segment[at:]
    if not segment or "{" in rest or "}" in rest:
        raise HostSetupError(
            f"function {function.name}: route {template!r}: expected segments such as models, {{id}}, "
            f"{{id:int}}, {{id?}} or {{*rest}}, got {segment!r}"
        )
    return (_MIXED if at else _LITERAL), pattern + re.escape(rest), False


def _checks(constraints: str, *, function: HttpFunction, template: str) -> list[str]:
    return [_constraint(each, function=function, template=template) for each in constraints.split(":")[1:]]


def _constraint(text: str, *, function: HttpFunction, template: str) -> str:
    if text in _CONSTRAINTS:
        return _CONSTRAINTS[text]
    sized = re.fullmatch(r"(length|minlength|maxlength)\((\d+)(?:,(\d+))?\)", text)
    if sized:
        kind, low, high = sized.groups()
        bounds = {"length": f"{low},{high or low}", "minlength": f"{low},", "maxlength": f"0,{low}"}
        return f"[^/]{{{bounds[kind]}}}"
    known = ", ".join(sorted({*_CONSTRAINTS, "length(n)", "minlength(n)", "maxlength(n)"}))
    raise HostSetupError(
        f"function {function.name}: route {template!r}: constraint {text!r} is not supported here, only {known}"
    )
