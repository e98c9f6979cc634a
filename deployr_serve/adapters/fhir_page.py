"""One answer of a FHIR server, in JSON or XML, R4 or STU3, as one page of R4 structs. Pure."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, get_args

import msgspec

from deployr_serve.adapters import fhir_stu3 as stu3
from deployr_serve.adapters import fhir_wire as wire
from deployr_serve.core.errors import EmrTooLarge

_MAX_ENTRIES = 5_000
_XML_TYPES = frozenset({"application/fhir+xml", "application/xml+fhir", "application/xml", "text/xml"})
_BYTE_ORDER_MARK = b"\xef\xbb\xbf"


@dataclass(frozen=True, kw_only=True, eq=False)
class Version:
    """How one version of FHIR is written.

    ``resources``: the union of what is read of it; ``answer``: of these and a Bundle of them. ``as_r4`` gives one of
    these as R4 has it; None leaves it. ``page`` reads an answer, ``resource`` one resource.
    """

    name: str
    resources: Any
    answer: Any
    as_r4: Callable[[Any], wire.Resource] | None
    type_of: Callable[[str], str]
    parameters_of: Callable[[str, tuple[tuple[str, str], ...]], tuple[tuple[str, str], ...]]
    page: msgspec.json.Decoder[Any]
    resource: msgspec.json.Decoder[Any]


def _version(
    name: str,
    resources: Any,
    *,
    as_r4: Callable[[Any], wire.Resource] | None = None,
    type_of: Callable[[str], str] = lambda name: name,
    parameters_of: Callable[[str, tuple[tuple[str, str], ...]], tuple[tuple[str, str], ...]] = lambda _, them: them,
) -> Version:
    answer = wire.Bundle[resources] | resources
    return Version(
        name=name,
        resources=resources,
        answer=answer,
        as_r4=as_r4,
        type_of=type_of,
        parameters_of=parameters_of,
        page=msgspec.json.Decoder(answer),
        resource=msgspec.json.Decoder(resources),
    )


R4 = _version("R4", wire.Read)
STU3 = _version("STU3", stu3.Resource, as_r4=stu3.as_r4, type_of=stu3.type_of, parameters_of=stu3.parameters_of)
VERSIONS = {version.name: version for version in (R4, STU3)}


def decode_page(body: bytes, *, content_type: str = "", version: Version = R4) -> wire.Page | wire.OperationOutcome:
    """Read one page of a search, or the OperationOutcome that came instead of one.

    Raises:
        ValueError: neither JSON nor XML, not a searchset Bundle, or a resource in it is not what its type must be. The
            message carries nothing of the content.
        EmrTooLarge: more entries than anybody asks for.
    """
    page = decode_answer(body, content_type=content_type, version=version)
    if isinstance(page, wire.OperationOutcome):
        return page
    if not isinstance(page, wire.Bundle):
        raise ValueError("expected a searchset Bundle, got a resource")  # noqa: TRY004
    return page


def decode_answer(body: bytes, *, content_type: str = "", version: Version = R4) -> wire.Page | wire.Resource:
    """Read one page of a search, or a single resource, whichever it is.

    Raises:
        ValueError, EmrTooLarge: as for `decode_page`.
    """
    body = body.removeprefix(_BYTE_ORDER_MARK)
    kind = content_type.partition(";")[0].strip().lower()
    if kind == "text/html":
        raise ValueError("expected FHIR, got a web page")
    if kind in _XML_TYPES or body.lstrip()[:1] == b"<":
        # Imported only where a server answers so: the library takes as long to load as everything else here.
        from deployr_serve.adapters.fhir_xml import decode_xml

        answer = decode_xml(body, version.answer)
    else:
        answer = _from_json(body, version)
    if not isinstance(answer, wire.Bundle):
        return answer if version.as_r4 is None else version.as_r4(answer)
    if answer.type != "searchset":
        raise ValueError("expected a Bundle of type searchset")
    if len(answer.entry) > _MAX_ENTRIES:
        raise EmrTooLarge(f"expected at most {_MAX_ENTRIES} entries in a page")
    if version.as_r4 is not None:
        upgraded = (wire.Entry(resource=version.as_r4(it.resource), search=it.search) for it in answer.entry)
        return msgspec.structs.replace(answer, entry=tuple(upgraded))
    return answer


def decode_whole(body: bytes, *, content_type: str = "") -> wire.Page | wire.OperationOutcome:
    """Read one page of a search whose matches are kept as they came, of whatever type.

    Raises:
        ValueError: not a searchset Bundle in JSON, or an entry without a type. The message carries nothing of it.
        EmrTooLarge: more entries than anybody asks for.
    """
    if content_type.partition(";")[0].strip().lower() in {*_XML_TYPES, "text/html"}:
        raise ValueError("expected FHIR in JSON")
    try:
        page = _raw_page.decode(body.removeprefix(_BYTE_ORDER_MARK))
        if isinstance(page, wire.OperationOutcome):
            return page
        entries = tuple(
            wire.Entry[wire.Resource](resource=_as_it_came(entry.resource), search=entry.search)
            for entry in page.entry[: _MAX_ENTRIES + 1]
        )
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError):
        raise ValueError("expected a FHIR searchset Bundle in JSON") from None
    if page.type != "searchset":
        raise ValueError("expected a Bundle of type searchset")
    if len(entries) > _MAX_ENTRIES:
        raise EmrTooLarge(f"expected at most {_MAX_ENTRIES} entries in a page")
    return wire.Bundle(type=page.type, meta=page.meta, total=page.total, link=page.link, entry=entries)


class _Head(msgspec.Struct, rename="camel"):
    resource_type: str
    id: str | None = None
    meta: wire.Meta | None = None
    subject: wire.Reference | None = None
    patient: wire.Reference | None = None


def _as_it_came(raw: msgspec.Raw) -> wire.Resource:
    head = _head.decode(raw)
    if head.resource_type == "OperationOutcome":
        return _outcome.decode(raw)
    return wire.Whole(
        kind=head.resource_type, id=head.id, meta=head.meta, subject=head.subject or head.patient, body=bytes(raw)
    )


_head = msgspec.json.Decoder(_Head)
_outcome = msgspec.json.Decoder(wire.OperationOutcome)


class _Kind(msgspec.Struct, rename="camel"):
    resource_type: str


_kind = msgspec.json.Decoder(_Kind)
_raw_page = msgspec.json.Decoder(wire.Bundle[msgspec.Raw] | wire.OperationOutcome)


def _from_json(body: bytes, version: Version) -> Any:
    try:
        return version.page.decode(body)
    except msgspec.ValidationError:
        # Perhaps the server included what nobody asked for, of a type that is not read; that is worth a second look.
        return _without_strange_includes(body, version)
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError):
        raise ValueError("expected a FHIR searchset Bundle in JSON or XML") from None


def _without_strange_includes(body: bytes, version: Version) -> Any:
    known = {kind.__name__ for kind in get_args(version.resources)}
    try:
        page = _raw_page.decode(body)
        if isinstance(page, wire.OperationOutcome):
            return page
        entries = []
        for entry in page.entry:
            included = entry.search is not None and entry.search.mode == "include"
            if not included or _kind.decode(entry.resource).resource_type in known:
                entries.append(wire.Entry(resource=version.resource.decode(entry.resource), search=entry.search))
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError):
        raise ValueError("expected a FHIR searchset Bundle of the resources that were asked for") from None
    return msgspec.structs.replace(page, entry=tuple(entries))
