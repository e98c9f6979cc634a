"""FHIR searches: what a query string asks for, and which resources answer to it."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime

from mock_emr.dates import DateError, DateTest, date_test_of, passes
from mock_emr.elements import local_reference
from mock_emr.exchange import XML_FORMATS
from mock_emr.outcomes import Issue, invalid_value, missing_element, not_supported, unknown_parameter
from mock_emr.parameters import Parameter, Term, parameters_of
from mock_emr.store import Form, Record, Store

DEFAULT_COUNT = 100
MOST_COUNT = 1000

_SPLIT = re.compile(r"(?<!\\),")
_PIPE = re.compile(r"(?<!\\)\|")
_ESCAPED = re.compile(r"\\([,|$\\])")
_JSON_FORMATS = ("json", "application/json", "application/fhir+json", "text/json")


class QueryError(ValueError):
    """The search cannot be carried out as asked; ``issues`` say why and repeat no value."""

    def __init__(self, status: int, *issues: Issue) -> None:
        super().__init__("; ".join(issue.diagnostics or issue.text for issue in issues))
        self.status = status
        self.issues = issues


@dataclass(frozen=True, kw_only=True, slots=True)
class TermCriterion:
    """The resource must answer to one of these terms (tokens or references)."""

    name: str
    terms: frozenset[Term]


@dataclass(frozen=True, kw_only=True, slots=True)
class DateCriterion:
    """The resource must pass one of these date tests."""

    name: str
    tests: tuple[DateTest, ...]


Criterion = TermCriterion | DateCriterion


@dataclass(frozen=True, kw_only=True)
class Query:
    """A search that was understood.

    Every criterion must hold. ``sort`` is (date parameter or `_id`, whether descending), most important
    first. ``count`` is the page size; 0 asks for the total alone. ``understood`` are the pairs to repeat in
    the self link, ``ignored`` the parameters that were not known.
    """

    resource_type: str
    criteria: tuple[Criterion, ...]
    sort: tuple[tuple[str, bool], ...]
    count: int
    understood: tuple[tuple[str, str], ...]
    ignored: tuple[str, ...]

    def asked_for(self, *names: str) -> tuple[str, ...]:
        """Give the ids or references that the criteria under these names ask for, in a fixed order."""
        return tuple(
            sorted(
                code
                for criterion in self.criteria
                if isinstance(criterion, TermCriterion) and criterion.name in names
                for _, code in criterion.terms
                if code is not None
            )
        )


def query_of(resource_type: str, pairs: Sequence[tuple[str, str]], *, strict: bool) -> Query:
    """Understand the parameters of a search.

    A parameter without a value is passed over. Repeating one narrows the search, commas within one widen it.

    Args:
        resource_type: what is searched.
        pairs: names and values, decoded, in the order given.
        strict: refuse unknown parameters, rather than ignoring and naming them.

    Raises:
        QueryError: a value or modifier that cannot be read, an unknown parameter when strict, or no patient,
            `_id` or identifier.

    Source: FHIR R4 search.html (3.1.1.4 parameters, 3.1.1.1 handling), http.html `Prefer: handling`.
    """
    known = parameters_of(resource_type)
    criteria: list[Criterion] = []
    sort: tuple[tuple[str, bool], ...] = ()
    count = DEFAULT_COUNT
    understood: list[tuple[str, str]] = []
    ignored: list[str] = []
    for name, value in pairs:
        bare, _, modifier = name.partition(":")
        if not value:
            continue
        if name == "_format":
            _check_format(value)
        elif name == "_count":
            count = _count(value)
        elif name == "_sort" and _can_sort(value, known):
            sort = tuple((key.removeprefix("-"), key.startswith("-")) for key in value.split(","))
        elif bare in known:
            criteria.append(_criterion(bare, modifier, value, known[bare]))
        else:
            ignored.append(name)
            continue
        understood.append((name, value))
    if strict and ignored:
        raise QueryError(400, *(unknown_parameter(name, severity="fatal") for name in ignored))
    query = Query(
        resource_type=resource_type,
        criteria=tuple(criteria),
        sort=sort,
        count=count,
        understood=tuple(understood),
        ignored=tuple(dict.fromkeys(ignored)),
    )
    _check_scope(query)
    return query


def matches(criterion: Criterion, form: Form) -> bool:
    """Tell whether the resource, as it shows, meets the criterion."""
    match criterion:
        case TermCriterion(name=name, terms=terms):
            held = form.terms.get(name)
            return held is not None and not terms.isdisjoint(held)
        case DateCriterion(name=name, tests=tests):
            interval = form.intervals.get(name)
            return interval is not None and any(passes(test, interval) for test in tests)


def found(query: Query, *, store: Store, now: datetime) -> tuple[Form, ...]:
    """Give everything that shows at ``now`` and meets the query, sorted as it asks, else in the order of loading."""
    forms = (form for record in _candidates(query, store) if (form := record.at(now)) is not None)
    matching = [form for form in forms if all(matches(criterion, form) for criterion in query.criteria)]
    # Sorting is stable, so the least important key goes first.
    for name, descending in reversed(query.sort):
        _sort(matching, name, descending=descending)
    return tuple(matching)


def _sort(forms: list[Form], name: str, *, descending: bool) -> None:
    """Sort in place; resources without the date come last, whichever way."""
    if name == "_id":
        forms.sort(key=lambda form: form.address, reverse=descending)
        return
    dated = [form for form in forms if name in form.intervals]
    undated = [form for form in forms if name not in form.intervals]
    dated.sort(key=lambda form: (form.intervals[name].low, form.intervals[name].high), reverse=descending)
    forms[:] = dated + undated


def _candidates(query: Query, store: Store) -> Iterable[Record]:
    if ids := query.asked_for("_id"):
        return store.with_ids(query.resource_type, ids)
    if patients := query.asked_for("patient", "subject"):
        return store.of_patients(query.resource_type, (text.rsplit("/", 1)[-1] for text in patients))
    if query.asked_for("location"):
        return store.all_of(query.resource_type)
    terms = (
        criterion.terms
        for criterion in query.criteria
        if isinstance(criterion, TermCriterion) and criterion.name == "identifier"
    )
    return store.identified_by(query.resource_type, next(terms, frozenset()))


def _check_scope(query: Query) -> None:
    """Refuse to enumerate, as Epic does. Source: its message and expression [seen], recorded for Observation."""
    names = {criterion.name for criterion in query.criteria}
    if names.isdisjoint({"_id", "identifier", "location", "patient", "subject"}):
        who = "an identifier or _id" if query.resource_type == "Patient" else "a patient or _id"
        expression = "identifier/_id" if query.resource_type == "Patient" else "patient/_id"
        raise QueryError(400, missing_element(expression, f"This resource requires {who} parameter for searching."))


def _criterion(name: str, modifier: str, value: str, parameter: Parameter) -> Criterion:
    if modifier and not (parameter.kind == "reference" and modifier == (parameter.target or "Patient")):
        # FHIR R4 search.html#modifiers: a modifier that is not supported SHALL be refused, in lenient handling too.
        raise QueryError(400, not_supported(f"The modifier of {name} is not supported."))
    alternatives = [part for part in _SPLIT.split(value) if part]
    if not alternatives:
        raise QueryError(400, invalid_value(name, "Expected a value between the commas."))
    match parameter.kind:
        case "date":
            try:
                return DateCriterion(name=name, tests=tuple(date_test_of(part) for part in alternatives))
            except DateError as error:
                raise QueryError(400, invalid_value(name, str(error))) from error
        case "reference":
            target = modifier or parameter.target
            return TermCriterion(name=name, terms=frozenset(_reference_term(part, target) for part in alternatives))
        case "token":
            return TermCriterion(name=name, terms=frozenset(_token_term(part) for part in alternatives))


def _token_term(text: str) -> Term:
    """`code`, `system|code`, `|code` (no system) or `system|` (any code). Source: FHIR R4 search.html#token."""
    parts = _PIPE.split(text, maxsplit=1)
    if len(parts) == 1:
        return None, _unescaped(parts[0])
    return _unescaped(parts[0]), _unescaped(parts[1]) or None


def _reference_term(text: str, target: str | None) -> Term:
    """`id` or `Type/id`, or either at the end of a URL. Source: FHIR R4 search.html#reference."""
    reference = local_reference(_unescaped(text))
    return None, reference if "/" in reference or target is None else f"{target}/{reference}"


def _unescaped(text: str) -> str:
    return _ESCAPED.sub(r"\1", text)


def _count(value: str) -> int:
    if not (value.isascii() and value.isdigit() and len(value) < 10):
        raise QueryError(400, invalid_value("_count", "Expected a whole number, 0 or more."))
    return min(int(value), MOST_COUNT)


def _can_sort(value: str, known: Mapping[str, Parameter]) -> bool:
    names = (key.removeprefix("-") for key in value.split(","))
    return all(name == "_id" or (name in known and known[name].kind == "date") for name in names)


def _check_format(value: str) -> None:
    if value.lower() not in (*_JSON_FORMATS, *XML_FORMATS):
        raise QueryError(406, not_supported("Expected _format=json or _format=xml."))
