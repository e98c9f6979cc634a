"""FHIRPath expressions as label rules: read and checked once, then evaluated over a Bundle. Pure.

The engine is imported with this module, which nobody imports but a rule that has an expression.

Source: FHIRPath 2.0.0, http://hl7.org/fhirpath/N1/; FHIR R4 fhirpath.html.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence
from datetime import UTC, datetime
from decimal import Decimal
from functools import lru_cache
from typing import Any

import fhirpathpy
from antlr4 import CommonTokenStream, InputStream, Token
from fhirpathpy.engine.invocations import invocation_registry
from fhirpathpy.engine.nodes import FP_DateTime
from fhirpathpy.models import models
from fhirpathpy.parser import parse
from fhirpathpy.parser.generated.FHIRPathLexer import FHIRPathLexer
from fhirpathpy.parser.generated.FHIRPathParser import FHIRPathParser

from deployr_core.labels import RuleFailed

_FORBIDDEN = frozenset({"now", "today", "timeOfDay", "trace", "resolve"})
"""They read the clock, so that a label would depend on when it was asked for; print what they see; or go elsewhere."""

_NOT_THERE = frozenset({"min", "max", "sum", "avg"})
"""Not in FHIRPath 2.0.0; the engine has them, and they fail on whatever comes out of a resource."""

_VARIABLES = frozenset({"as_of", "until", "ucum", "context", "resource"})
_LONGEST = 4000
_NOBODY: Mapping[str, Any] = {"resourceType": "Bundle", "type": "collection", "entry": []}


@lru_cache(maxsize=64)
def compiled(expression: str) -> FhirPath:
    """Read an expression, and try it on a Bundle without entries.

    Raises:
        ValueError: not FHIRPath, a function or variable that there is not, or one that is not allowed here.
    """
    if not expression.strip() or len(expression) > _LONGEST:
        raise ValueError(f"expected a FHIRPath expression of 1 to {_LONGEST} characters")
    try:
        is_whole = _is_whole(expression)
        tree = parse(expression)
    except Exception:  # noqa: BLE001 the parser raises whatever it likes
        is_whole = False
    if not is_whole:
        raise ValueError("expected an expression that FHIRPath can read, to its last character")
    functions = set(_named(tree, "Functn", "Identifier"))
    if forbidden := sorted(functions & _FORBIDDEN):
        raise ValueError(f"expected an expression without {', '.join(forbidden)}(): use %as_of and %until for instants")
    if unknown := sorted(functions - (invocation_registry.keys() - _NOT_THERE)):
        instead = ": use aggregate()" if _NOT_THERE & set(unknown) else ""
        raise ValueError(f"expected FHIRPath functions; there is no {', '.join(unknown)}(){instead}")
    variables = frozenset(_named(tree, "ExternalConstant", "Identifier"))
    if unknown := sorted(variables - _VARIABLES):
        raise ValueError(f"expected the variables %as_of and %until; there is no %{', %'.join(unknown)}")
    path = FhirPath(expression, variables=variables)
    epoch = datetime(2000, 1, 1, tzinfo=UTC)
    try:
        path(_NOBODY, as_of=epoch, until=epoch)
    except RuleFailed:
        raise ValueError("expected an expression that can be evaluated, also where nothing was found") from None
    return path


class FhirPath:
    """A checked expression; see `compiled`. ``variables``: those that it uses."""

    def __init__(self, expression: str, *, variables: frozenset[str]) -> None:
        self.variables = variables
        self._evaluate = fhirpathpy.compile(expression, models["r4"])

    def __call__(self, bundle: Mapping[str, Any], *, as_of: datetime, until: datetime) -> Sequence[Any]:
        """Give the collection that the expression comes to over the Bundle.

        Raises:
            RuleFailed: it cannot be evaluated over this.
        """
        variables = {"as_of": _fhirpath_instant(as_of), "until": _fhirpath_instant(until)}
        try:
            return list(self._evaluate(bundle, variables))
        except Exception:  # noqa: BLE001 the engine raises whatever it likes, with what it saw in the message
            raise RuleFailed("expected an expression that can be evaluated over the patient's resources") from None


def truth(found: Sequence[Any]) -> float | None:
    """Give 1.0 or 0.0 for the one boolean of a collection; None for any other."""
    return float(found[0]) if len(found) == 1 and isinstance(found[0], bool) else None


def number(found: Sequence[Any]) -> float | None:
    """Give the one finite number of a collection; None for any other. A quantity is no number: ask for its value."""
    if len(found) != 1 or isinstance(found[0], bool) or not isinstance(found[0], int | float | Decimal):
        return None
    value = float(found[0])
    return value if math.isfinite(value) else None


def _is_whole(expression: str) -> bool:
    """Tell whether all of it was read without a mistake: the engine itself reads ``count()) > 1`` as ``count()``."""
    lexer = FHIRPathLexer(InputStream(expression))
    lexer.removeErrorListeners()
    tokens = CommonTokenStream(lexer)
    parser = FHIRPathParser(tokens)
    parser.removeErrorListeners()
    parser.expression()
    return bool(parser.getNumberOfSyntaxErrors() == 0 and tokens.LA(1) == Token.EOF)


def _fhirpath_instant(instant: datetime) -> FP_DateTime:
    # As text it would be compared letter by letter, offset included.
    return FP_DateTime(instant.astimezone(UTC).isoformat(timespec="microseconds").replace("+00:00", "Z"))


def _named(node: Any, kind: str, name: str) -> Iterator[str]:
    """Give the names that nodes of a kind carry."""
    if not isinstance(node, Mapping):
        return
    children = node.get("children", ())
    if node.get("type") == kind:
        yield from (
            str(child["text"]).strip("`") for child in children if child.get("type") == name and child.get("text")
        )
    for child in children:
        yield from _named(child, kind, name)
