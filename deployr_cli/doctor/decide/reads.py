"""What the answers say about reading: the server's statement, searches, pages, units, identifiers. Pure."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field

import msgspec

from deployr_cli.doctor.decide.findings import Finding, counted, fail, listed, ok, shown, skipped, warn
from deployr_core.codes import Code
from deployr_core.declared import Analyte
from deployr_core.facts import Lab, PatientFacts, Vital
from deployr_core.features import FeatureSpec, LabGroup, VitalGroup
from deployr_core.packet import FetchRecord
from deployr_core.units import conversion_factor
from deployr_serve.adapters import fhir_wire as wire
from deployr_serve.adapters.fhir_plan import Search
from deployr_serve.core.errors import ServeError

_RELEASES = {"4.0": "R4", "4.3": "R4B", "5.0": "R5", "3.0": "STU3", "1.0": "DSTU2"}
_KINDS = ("labs", "vitals", "diagnoses", "medications", "procedures", "orders", "visits")


# -- what the server says about itself


class _Code(msgspec.Struct):
    code: str = ""


class _Parameter(msgspec.Struct):
    name: str = ""


class _Resource(msgspec.Struct, rename="camel"):
    type: str = ""
    interaction: list[_Code] = []
    search_param: list[_Parameter] = []
    search_include: list[str] = []
    conditional_create: bool = False


class _Rest(msgspec.Struct):
    mode: str = "server"
    resource: list[_Resource] = []


class Statement(msgspec.Struct, rename="camel"):
    """What is read of a CapabilityStatement. Source: http://hl7.org/fhir/R4/capabilitystatement.html [seen]."""

    resource_type: str
    fhir_version: str = ""
    format: list[str] = []
    rest: list[_Rest] = []

    @property
    def resources(self) -> dict[str, _Resource]:
        """Give what is said of each resource type."""
        return {each.type: each for rest in self.rest if rest.mode == "server" for each in rest.resource}


def statement_in(body: bytes) -> Statement | None:
    """Read a CapabilityStatement in JSON; None if it is not that."""
    try:
        found = msgspec.json.decode(body, type=Statement)
    except (msgspec.DecodeError, UnicodeDecodeError):
        return None
    return found if found.resource_type == "CapabilityStatement" else None


def instead_of_statement(body: bytes) -> str | None:
    """Say what FHIR came that is no CapabilityStatement in JSON; None if it is no FHIR, such as a login page."""
    if body.lstrip(b"\xef\xbb\xbf \r\n\t").startswith(b"<"):
        return "a CapabilityStatement in XML alone" if b"<CapabilityStatement" in body else None
    return "another resource than a CapabilityStatement" if b'"resourceType"' in body else None


def judge_statement(status: int, statement: Statement | None, *, version: str, instead: str | None = None) -> Finding:
    """Compare the server's FHIR version with ``DEPLOYR_EMR_FHIR_VERSION``; ``instead`` is what came in its place."""
    check = "metadata"
    if statement is None and status == 200 and instead is not None:
        return warn(
            check, f"{instead} at /metadata", "Run with --patient: searches tell what could not be compared here."
        )
    if status in {401, 403}:
        return warn(check, f"status {status}, with our credentials too", "Nothing: only this comparison is left out.")
    if statement is None:
        what = "no CapabilityStatement in JSON" if status == 200 else f"status {status}"
        return fail(check, f"{what} at the FHIR base's /metadata", "Look at DEPLOYR_EMR_FHIR_BASE.")
    release = _RELEASES.get(".".join(statement.fhir_version.split(".")[:2]), shown(statement.fhir_version))
    if release != version:
        return fail(
            check,
            f"the server speaks FHIR {release}, the settings say {version}",
            "Set DEPLOYR_EMR_FHIR_VERSION to R4 or STU3, or give the base of that version in DEPLOYR_EMR_FHIR_BASE.",
        )
    if statement.format and not any("json" in each for each in statement.format):
        return warn(
            check, f"FHIR {release}, but no JSON, only {listed(map(shown, statement.format))}", "XML is slower."
        )
    return ok(check, f"FHIR {release}, JSON")


def judge_offered(statement: Statement, searches: Iterable[Search]) -> Finding:
    """Compare what the server says that it can search for with what our searches ask, both in its own version."""
    check = "search parameters"
    asked: dict[str, dict[str, None]] = {}
    for search in searches:
        asked.setdefault(search.resource_type, {}).update(dict.fromkeys(name for name, _ in search.parameters))
    offered = statement.resources
    gone = [it for it in asked if it not in offered or not _is_searched(offered[it])]
    if gone:
        return fail(
            check,
            f"no search is offered for {listed(gone)}",
            "Have the EMR's team switch these APIs on for our client; without them no model that needs them can score.",
        )
    unlisted = [
        f"{kind}?{name}"
        for kind, names in asked.items()
        for name in names
        if name not in {"_include", "_count"} and name not in {it.name for it in offered[kind].search_param}
    ]
    if unlisted:
        return warn(
            check,
            f"not listed by the server: {listed(unlisted)}",
            "Run with --patient: the searches themselves tell. What a server ignores makes answers larger, not wrong.",
        )
    included = [
        value.partition(":")[0]
        for search in searches
        for name, value in search.parameters
        if name == "_include" and value not in offered[search.resource_type].search_include
    ]
    more = "; medications cost a second call, for _include is not listed" if included else ""
    return ok(check, f"all listed, of {counted(len(asked), 'resource type')}{more}")


def creates(statement: Statement | None) -> str:
    """Say what a CapabilityStatement tells about writing."""
    offered = statement.resources if statement else {}
    kinds = sorted(kind for kind, it in offered.items() if any(one.code == "create" for one in it.interaction))
    conditional = [kind for kind in kinds if offered[kind].conditional_create]
    if not kinds:
        return "FHIR create is not offered"
    return f"FHIR create of {listed(kinds)}; conditional of {listed(conditional) or 'none'}"


def _is_searched(resource: _Resource) -> bool:
    return not resource.interaction or any(one.code == "search-type" for one in resource.interaction)


# -- searches and pages


def judge_post(*, by_post: ServeError | None, by_get: ServeError | None, is_get_set: bool) -> Finding:
    """Judge whether ``POST _search`` works; each argument is how one such search failed, None if it did not."""
    check = "search by POST"
    if by_post is None and is_get_set:
        return warn(check, "it works, but DEPLOYR_EMR_SEARCH is get", "Set it to post: ids then stand in no URL.")
    if by_post is None:
        return ok(check, "no identifier stands in a URL")
    if by_get is not None:
        return fail(
            check,
            f"a search fails by POST and by GET: {by_post.reason}, {by_get.reason}",
            "Look at --patient and at what is to fix before this; then ask the EMR's team what its log says.",
        )
    if is_get_set:
        return warn(
            check,
            "not offered; searches go out by GET",
            "Patients' ids stand in the logs of proxies: see them cleaned.",
        )
    return fail(
        check,
        f"the server answers by GET alone (by POST: {by_post.reason})",
        "Set DEPLOYR_EMR_SEARCH=get. Patients' ids then stand in URLs, and so in the logs of every proxy on the way.",
    )


def judge_search(check: str, record: FetchRecord, *, deadline_s: float) -> Finding:
    """Judge a search that was answered whole; it should take no more than half of what a request may take."""
    total = "no total given" if record.total is None else f"{record.total:,} counted by the server"
    said = (
        f"{counted(record.resources, 'resource')} on {counted(record.pages, 'page')} in {record.milliseconds:.0f} ms, "
        f"complete ({total})"
    )
    if record.milliseconds > deadline_s * 500:
        return warn(check, said, f"This is more than half of DEPLOYR_DEADLINE_S, {deadline_s:g} s: ask the EMR's team.")
    return ok(check, said)


@dataclass(frozen=True, kw_only=True, slots=True)
class Paged:
    """One search with pages of ``size``, and what the same search gave at once; ids only, never shown."""

    name: str
    size: int
    pages: int
    ids: frozenset[str] = field(repr=False)
    at_once: frozenset[str] = field(repr=False)


def judge_paging(paged: Paged) -> Finding:
    """Judge whether pages add up to what came at once."""
    check = "paging"
    if paged.ids != paged.at_once:
        return fail(
            check,
            f"{paged.name}: {len(paged.at_once)} at once, but {len(paged.ids)} by pages of {paged.size}",
            "Ask the EMR's team: pages that skip or repeat matches make short histories of long ones.",
        )
    if paged.pages == 1:
        return warn(check, f"{paged.name}: _count={paged.size} is ignored", "Take a test patient with a longer record.")
    return ok(check, f"{paged.name}: {paged.pages} pages of {paged.size} give the same {len(paged.ids)} as at once")


def judge_patient_parameter(*, by_type_and_id: int) -> Finding:
    """Judge a patient of whom nothing was found by ``patient=ID``, by how much ``patient=Patient/ID`` finds.

    Source: FHIR R4 search.html#reference allows both, http://hl7.org/fhir/R4/search.html#reference [seen].
    """
    check = "patient parameter"
    if by_type_and_id:
        return fail(
            check,
            f"patient=ID finds no encounter, patient=Patient/ID finds {by_type_and_id}: records would look empty",
            "Set DEPLOYR_EMR_PATIENT_REFERENCE=typed. Without it everybody would seem healthy.",
        )
    return skipped(check, "no encounter is found by patient=ID, nor by patient=Patient/ID")


# -- facts, units and codes


def judge_facts(
    check: str, facts: PatientFacts, records: Sequence[FetchRecord], dropped: Mapping[str, int], *, deadline_s: float
) -> Finding:
    """Judge what became of the resources: a kind of which came some, and none could be used, must not go live."""
    came = {record.name: record.resources for record in records}
    usable = {kind: len(getattr(facts, kind)) for kind in _KINDS if kind in came}
    said = ", ".join(f"{kind} {number}" for kind, number in usable.items())
    why = "; ".join(f"{reason} {number}" for reason, number in sorted(dropped.items()))
    lost = [kind for kind, number in usable.items() if came[kind] and not number]
    if lost:
        return fail(
            check,
            f"nothing that came can be used of {listed(lost)}: {why or 'no reason was counted'}",
            "Ask the EMR's team for what is missing, such as issued, recordedDate or a category; docs/connecting.md "
            "says what a fact needs.",
        )
    if usable and not any(usable.values()) and not why:
        fix = "Take a test patient with a record, or another --as-of: an empty record proves nothing."
        return warn(check, f"nothing at all came of {listed(usable)}", fix)
    seconds = max((record.milliseconds for record in records), default=0.0) / 1000
    said = f"usable: {said or 'none asked for'}; the slowest search took {seconds:.1f} s of {deadline_s:g} s"
    if why:
        return warn(
            check, f"{said}; left out or noted: {why}", "Look whether that is as it should be for this patient."
        )
    return ok(check, said)


@dataclass(frozen=True, kw_only=True, slots=True)
class Seen:
    """What the results of one patient say about the declared tests.

    ``convertible`` counts results by declared unit, ``odd`` those with a number in a unit without a reviewed
    conversion, by test, declared unit and the spelling that came. ``never`` names tests without any result.
    """

    convertible: int
    odd: Mapping[tuple[str, str, str], int]
    never: tuple[str, ...]
    tests: int


def seen_in(spec: FeatureSpec, facts: PatientFacts) -> Seen:
    """Count units and codes over all results that came, whatever the window."""
    convertible, tests = 0, 0
    odd: Counter[tuple[str, str, str]] = Counter()
    never = []
    for analyte, results in _declared(spec, facts):
        tests += 1
        named = [(it, code) for it in results if (code := _first(analyte.keys, it.codes)) is not None]
        if not named:
            never.append(f"{analyte.code} {analyte.name}")
        for it, code in named:
            if it.value is None:
                continue
            if conversion_factor(code, unit=it.unit, wanted=analyte.unit) is None:
                odd[analyte.code, analyte.unit, it.unit] += 1
            else:
                convertible += 1
    return Seen(convertible=convertible, odd=odd, never=tuple(never), tests=tests)


def _declared(spec: FeatureSpec, facts: PatientFacts) -> Iterator[tuple[Analyte, Sequence[Lab | Vital]]]:
    """Give each declared test with the results that are looked through for it, once however many windows it has."""
    met = set()
    for group in spec.groups:
        if isinstance(group, LabGroup | VitalGroup):
            for analyte in group.analytes:
                key = (type(group), analyte.keys, analyte.unit)
                if key not in met:
                    met.add(key)
                    yield analyte, facts.labs if isinstance(group, LabGroup) else facts.vitals


def judge_units(check: str, seen: Seen) -> Finding:
    """Judge units: a result in a unit that nobody reviewed counts as missing."""
    number = sum(seen.odd.values())
    if not number and not seen.convertible:
        return skipped(check, "no result with a number came: take a patient with some, or another --as-of")
    if not number:
        return ok(check, f"{counted(seen.convertible, 'result')}, all in units that are known")
    spelled = [
        f"{code} in '{shown(unit, most=24)}' x{times} (declared {wanted})"
        for (code, wanted, unit), times in sorted(seen.odd.items(), key=lambda it: (-it[1], it[0]))
    ]
    said = (
        f"{number} of {counted(number + seen.convertible, 'result')} in units without a conversion: {listed(spelled)}"
    )
    fix = "Have the conversion reviewed and added to deployr_core/units.py; until then these results count as missing."
    return fail(check, said, fix)


def judge_codes(check: str, seen: Seen) -> Finding:
    """Say which declared tests never came: information, for one patient has few of them."""
    if not seen.tests:
        return skipped(check, "no tests are declared")
    if not seen.never:
        return ok(check, f"all {counted(seen.tests, 'declared test')} came")
    return ok(check, f"{len(seen.never)} of {counted(seen.tests, 'declared test')} never came: {listed(seen.never)}")


def _first(keys: Iterable[Code], codes: Iterable[Code]) -> Code | None:
    held = set(codes)
    return next((key for key in keys if key in held), None)


# -- identifiers


def judge_encounters(encounters: Sequence[wire.Encounter], *, with_csn: int, writes: bool) -> Finding:
    """Judge whether contact serial numbers are found: a score is written to an encounter by its number."""
    check = "encounters"
    if not encounters:
        return skipped(check, "this patient has none: take one who has")
    said = f"{with_csn} of {counted(len(encounters), 'encounter')} with a contact serial number"
    kinds = _kinds(it for encounter in encounters for it in encounter.identifier)
    if with_csn == len(encounters):
        return ok(check, said)
    fix = "Set DEPLOYR_EMR_CSN_SYSTEM to the identifier system of the contact serial number."
    said = f"{said}; identifiers there: {kinds or 'none'}"
    return (
        fail(check, said, f"{fix} Scores cannot be written without.")
        if writes and not with_csn
        else warn(check, said, fix)
    )


def judge_identifiers(patient: wire.Patient, *, systems: Mapping[str, str]) -> Finding:
    """Compare the identifier systems of a Patient with ``DEPLOYR_EMR_IDENTIFIER_SYSTEMS``."""
    check = "identifiers"
    held = {it.system for it in patient.identifier}
    said = _kinds(patient.identifier) or "none"
    if missing := sorted(kind for kind, system in systems.items() if system not in held):
        return warn(
            check,
            f"none of the systems set for {listed(missing)}; there: {said}",
            "Look at DEPLOYR_EMR_IDENTIFIER_SYSTEMS: who is sent by these types is not found.",
        )
    return ok(check, said)


def _kinds(identifiers: Iterable[wire.Identifier]) -> str:
    """Name types and systems of identifiers, never their values."""
    kinds = Counter(
        f"{shown((it.type.text if it.type else None) or 'no type', most=24)} ({shown(it.system)})"
        for it in identifiers
        if it.value
    )
    return listed(f"{kind} x{times}" for kind, times in sorted(kinds.items()))
