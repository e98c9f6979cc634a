"""The CDA-XML channel: bytes of a CDA R2 document, as an alert sends it, to what it names. Pure: nobody is looked up.

Who the patient is comes from ``recordTarget/patientRole/id`` and from nowhere else; narrative text is never read.

Source: HL7 CDA R2, POCD_HD000040; data types II and TS, https://www.hl7.org/implement/standards/product_brief.cfm?
product_id=7 [seen]; that an alert sends such a document [secondary]; where its order stands [assumed]. The contract is
ours: docs/bpa.md.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta, timezone, tzinfo
from typing import Any

import msgspec

from deployr_serve.core.errors import AmbiguousPatient, MalformedRequest, MissingPatient, UnsupportedMediaType
from deployr_serve.core.ports import Named, TypedIdentifier
from deployr_serve.core.request import FHIR_ID
from deployr_serve.triggers.bpa_envelope import Wrapping, unwrap, wrapping_of
from deployr_serve.triggers.bpa_xml import Path, compile_path, read_xml
from deployr_serve.triggers.json_request import EARLIEST_YEAR

CHANNEL = "bpa"
CDA = "urn:hl7-org:v3"
MEDIA_TYPES = frozenset({"application/xml", "text/xml", "application/soap+xml"})
_FHIR = "FHIR"
_VALUE = re.compile(r"[!-~](?:[ -~]{0,126}[!-~])?\Z", re.ASCII)
_TS = re.compile(
    r"(?P<minutes>\d{12})(?P<seconds>\d{2})?(?:\.(?P<fraction>\d{1,6})\d*)?"
    r"(?P<zone>(?P<sign>[+-])(?P<hours>0\d|1[0-4])(?P<off>[0-5]\d))?\Z",
    re.ASCII,
)
_CONTEXT_PATHS = {
    "provider": "c:author/c:assignedAuthor[c:assignedPerson]/c:id",
    "department": "c:componentOf/c:encompassingEncounter/c:location/c:healthCareFacility/c:id",
}


class Paths(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True, rename="camel"):
    """Where in the document a site's EMR says what; XPath 1.0 from the ClinicalDocument on. ``c:`` is CDA's namespace.

    ``encounter``, ``order``, ``provider`` and ``department`` select elements of type II; ``event_time`` selects one of
    type TS, or its attribute. None: it is not read. Where the patient stands is not for a site to choose.
    """

    namespaces: Mapping[str, str] = {}
    encounter: str | None = "c:componentOf/c:encompassingEncounter/c:id"
    order: str | None = (
        "c:component/c:structuredBody//c:entry/c:observation[@moodCode='RQO']/c:id"
        " | c:component/c:structuredBody//c:entry/c:act[@moodCode='RQO']/c:id"
    )
    provider: str | None = _CONTEXT_PATHS["provider"]
    department: str | None = _CONTEXT_PATHS["department"]
    event_time: str = "c:effectiveTime"


@dataclass(frozen=True, kw_only=True, slots=True)
class BpaReader:
    """How one site's documents are read; put together once, by `bpa_reader`.

    ``roots``: the type of the identifiers under each root, an OID or a UUID. ``zone``: of times that carry no offset;
    None refuses them. ``paths``: by what is found there.
    """

    roots: Mapping[str, str]
    zone: tzinfo | None
    paths: Mapping[str, Path]


@dataclass(frozen=True, kw_only=True, slots=True)
class BpaDocument:
    """What a document says, of all that is asked of it. ``context``: what a trial may go by, such as ``provider``."""

    named: Named
    event_time: datetime
    context: Mapping[str, str] = field(repr=False)


def bpa_reader(*, roots: Mapping[str, str], zone: tzinfo | None, paths: Paths) -> BpaReader:
    """Compile a site's paths.

    Raises:
        ValueError: one of them is not what it must be; the message names it.
    """
    if paths.namespaces.get("c", CDA) != CDA:
        raise ValueError("namespaces: expected another prefix than c, which is CDA's")
    compiled = {}
    for name in ("encounter", "order", "provider", "department", "event_time"):
        path = getattr(paths, name)
        if path is not None:
            try:
                compiled[name] = compile_path(path, namespaces={**paths.namespaces, "c": CDA})
            except ValueError as error:
                raise ValueError(f"{name}: {error}") from None
    return BpaReader(roots=dict(roots), zone=zone, paths=compiled)


def media_type_of(content_type: str | None) -> tuple[str, str | None]:
    """Take a Content-Type apart: the media type in lower case, and the charset if it names one."""
    media_type, *parameters = (part.strip() for part in (content_type or "").split(";"))
    charsets = [value for name, _, value in (each.partition("=") for each in parameters) if name.lower() == "charset"]
    return media_type.lower(), charsets[0].strip("\"'") if charsets else None


def open_document(body: bytes, *, content_type: str | None, content_encoding: str | None) -> tuple[Any, Wrapping]:
    """Read the body as XML, and tell what the document in it came in.

    Raises:
        UnsupportedMediaType: not XML, or compressed.
        RequestTooLarge, MalformedRequest: see `read_xml`.
    """
    media_type, charset = media_type_of(content_type)
    if media_type not in MEDIA_TYPES or (content_encoding or "identity").lower() != "identity":
        raise UnsupportedMediaType(f"expected one of {', '.join(sorted(MEDIA_TYPES))}, not compressed")
    root = read_xml(body, charset=charset)
    return root, wrapping_of(root)


def read_document(root: Any, wrapping: Wrapping, reader: BpaReader) -> BpaDocument:
    """Read what an opened document says.

    Raises:
        MissingPatient: no identifier of a type that is known here, or another number of recordTargets than one.
        AmbiguousPatient: two different identifiers of one type.
        MalformedRequest: not CDA, a time that is not precise to the minute or has no offset, or an encounter or order
            that is there and is not understood.
    """
    document = unwrap(root, wrapping)
    if document.tag != f"{{{CDA}}}ClinicalDocument":
        raise MalformedRequest(f"expected a ClinicalDocument of the namespace {CDA}")
    named = Named(
        patient=_patient(document, reader.roots),
        encounter=_context_ids(document, reader, "encounter"),
        order=_context_ids(document, reader, "order"),
    )
    context = {name: value for name in _CONTEXT_PATHS if (value := _only_value(document, reader, name)) is not None}
    return BpaDocument(named=named, event_time=_event_time(document, reader), context=context)


def _patient(document: Any, roots: Mapping[str, str]) -> tuple[TypedIdentifier, ...]:
    targets = document.findall(f"{{{CDA}}}recordTarget")
    if len(targets) > 1:
        raise AmbiguousPatient("expected a document about one patient, with one recordTarget")
    roles = [role for target in targets for role in target.findall(f"{{{CDA}}}patientRole")]
    if len(roles) != 1:
        raise MissingPatient("expected one recordTarget with one patientRole")
    found = _identifiers(roles[0].findall(f"{{{CDA}}}id"), roots)
    if not found:
        raise MissingPatient("expected an id of the patient under a root of DEPLOYR_BPA_ID_ROOTS")
    if len({one.type for one in found}) != len(found):
        raise AmbiguousPatient("expected one id of the patient of each type")
    return found


def _context_ids(document: Any, reader: BpaReader, name: str) -> tuple[TypedIdentifier, ...]:
    """Read the ids of the encounter or order: none is fine, one that is not understood is not.

    Passing it over would switch off the check that it is this patient's.
    """
    elements = _selected(document, reader, name)
    given = [element for element in elements if element.get("nullFlavor") is None and element.get("extension")]
    found = _identifiers(given, reader.roots)
    if given and not found:
        raise MalformedRequest(f"{name}: expected an id under a root of DEPLOYR_BPA_ID_ROOTS")
    if len({one.type for one in found}) != len(found):
        raise MalformedRequest(f"{name}: expected one, the document names several")
    return found


def _identifiers(elements: list[Any], roots: Mapping[str, str]) -> tuple[TypedIdentifier, ...]:
    found: dict[TypedIdentifier, None] = {}
    for element in elements:
        id_type, value = roots.get(element.get("root", "")), element.get("extension")
        if id_type is None or not value or element.get("nullFlavor") is not None:
            continue
        if not (FHIR_ID if id_type == _FHIR else _VALUE).match(value):
            raise MalformedRequest("expected ids in visible ASCII; FHIR ids of at most 64 of A-Z a-z 0-9 - .")
        found[TypedIdentifier(type=id_type, value=value)] = None
    return tuple(found)


def _only_value(document: Any, reader: BpaReader, name: str) -> str | None:
    """Give the one value at a path; None where there is none, or several that do not agree."""
    values = {(element.get("root", ""), element.get("extension")) for element in _selected(document, reader, name)}
    whole = [f"{root}|{extension}" for root, extension in values if extension and _VALUE.match(extension)]
    return whole[0] if len(whole) == 1 else None


def _selected(document: Any, reader: BpaReader, name: str) -> list[Any]:
    path = reader.paths.get(name)
    found = [] if path is None else path(document)
    if not isinstance(found, list) or any(isinstance(each, str) for each in found):
        raise MalformedRequest(f"{name}: expected the site's path to select elements")
    return found


def _event_time(document: Any, reader: BpaReader) -> datetime:
    found = reader.paths["event_time"](document)
    found = found if isinstance(found, list) else [found]
    if len(found) != 1:
        raise MalformedRequest("effectiveTime: expected it once")
    text = found[0] if isinstance(found[0], str) else _attribute(found[0], "value")
    return parse_ts(text or "", zone=reader.zone)


def _attribute(selected: Any, name: str) -> str | None:
    """Give an element's attribute; of what is no element, such as a number that a path computes, None."""
    value = selected.get(name) if hasattr(selected, "get") else None
    return value if isinstance(value, str) else None


def parse_ts(text: str, *, zone: tzinfo | None) -> datetime:
    """Read an HL7 v3 point in time, in UTC: ``20140916152158-0500``, precise at least to the minute.

    What is precise to the minute is taken for its first instant: nothing of that minute is seen by the model.

    Args:
        text: the value.
        zone: for a value without an offset; None refuses it.

    Raises:
        MalformedRequest: less precise, without an offset, not on the calendar, before 1901, or a local time that there
            was not, or that there was twice, in the night that the clocks change.

    Source: HL7 v3 data types R1, TS: ``YYYYMMDDHHMMSS.UUUU[+|-ZZzz]`` [seen].
    """
    match = _TS.match(text)
    if match is None or (match["fraction"] and not match["seconds"]):
        raise MalformedRequest("effectiveTime: expected at least the minute, such as 20140916152158-0500")
    try:
        fraction = int((match["fraction"] or "").ljust(6, "0"))
        local = datetime.strptime(match["minutes"] + (match["seconds"] or "00"), "%Y%m%d%H%M%S")  # noqa: DTZ007 below
        local = local.replace(microsecond=fraction)
        if match["zone"]:
            size = timedelta(hours=int(match["hours"]), minutes=int(match["off"]))
            instant = local.replace(tzinfo=timezone(size if match["sign"] == "+" else -size)).astimezone(UTC)
        else:
            instant = _in_zone(local, zone)
    except (ValueError, OverflowError):
        raise MalformedRequest("effectiveTime: expected an instant that exists, once") from None
    if instant.year <= EARLIEST_YEAR:
        raise MalformedRequest(f"effectiveTime: expected an instant after the year {EARLIEST_YEAR}")
    return instant


def _in_zone(local: datetime, zone: tzinfo | None) -> datetime:
    if zone is None:
        raise MalformedRequest("effectiveTime: expected an offset, or DEPLOYR_TIME_ZONE to be set")
    first, second = (local.replace(tzinfo=zone, fold=fold) for fold in (0, 1))
    if first.utcoffset() != second.utcoffset():
        raise ValueError("expected a local time that there was, and only once")
    return first.astimezone(UTC)
