"""FHIR in XML, read into the same structs as JSON, by the structs' own types.

Nothing but elements and attributes is taken from the document: no DOCTYPE, no entities, nothing is fetched, and depth
and sizes stay within libxml2's own limits (256 levels, 10 MB in one text).

Source: FHIR R4 and STU3 XML representation, http://hl7.org/fhir/R4/xml.html [seen].
"""

from __future__ import annotations

import math
import re
from collections.abc import Callable, Iterable
from functools import cache
from typing import Any

import msgspec
from lxml import etree
from msgspec import inspect

from deployr_serve.adapters import fhir_wire as wire

_FHIR = "{http://hl7.org/fhir}"
_DECIMAL = re.compile(r"-?(?:0|[1-9]\d*)(?:\.\d+)?(?:[eE][+-]?\d+)?\Z", re.ASCII)
_Read = Callable[[Any], Any]


class _NotFhir(Exception):
    """An element that is not what FHIR says."""


def decode_xml(body: bytes, answer: Any) -> Any:
    """Read a document into what JSON of the same content would be read into.

    Included resources of types that are not read are left out.

    Args:
        body: the document, in UTF-8, as FHIR demands.
        answer: the type of what may come: the union of a Bundle and of the resources that are read.

    Raises:
        ValueError: not well-formed, a DOCTYPE, or not what FHIR says. The message carries no content.
    """
    parser = etree.XMLParser(
        encoding="utf-8",
        resolve_entities=False,
        load_dtd=False,
        no_network=True,
        huge_tree=False,
        remove_comments=True,
        remove_pis=True,
    )
    try:
        # Before it is parsed: what a DOCTYPE declares would be expanded by then.
        if b"<!DOCTYPE" in body:
            raise _NotFhir
        content = _reader(answer)((etree.fromstring(body, parser),))
        if content is None:
            raise _NotFhir
        if "entry" in content:
            content["entry"] = [entry for entry in content["entry"] if not _is_strange_include(entry)]
        return msgspec.convert(content, answer)
    except (etree.XMLSyntaxError, RecursionError, _NotFhir, msgspec.ValidationError):
        raise ValueError("expected a FHIR searchset Bundle in XML, without a DOCTYPE") from None


@cache
def _reader(answer: Any) -> _Read:
    return _reader_of(inspect.type_info(answer), {})[0]


def _reader_of(kind: inspect.Type, known: dict[Any, _Read]) -> tuple[_Read, bool]:
    """Give what reads an element of this type into plain values, and whether there may be many of it."""
    options = _options(kind)
    for option in options:
        if isinstance(option, inspect.VarTupleType):
            return _reader_of(option.item_type, known)[0], True
    structs = [option for option in options if isinstance(option, inspect.StructType)]
    if structs and structs[0].tag_field == "resourceType":
        return _resource_reader(structs, known), False
    if structs:
        return (_contained if structs[0].cls is wire.Contained else _struct_reader(structs[0], known)), False
    if isinstance(options[0], inspect.TypedDictType):
        return _struct_reader(options[0], known), False
    if any(isinstance(option, (inspect.FloatType, inspect.IntType)) for option in options):
        return _number, False
    return (_boolean if isinstance(options[0], inspect.BoolType) else _text), False


def _options(kind: inspect.Type) -> list[inspect.Type]:
    options: Iterable[inspect.Type] = kind.types if isinstance(kind, inspect.UnionType) else (kind,)
    return [option for option in options if not isinstance(option, inspect.NoneType)]


def _is_strange_include(entry: dict[str, Any]) -> bool:
    """True of what the server included beside the matches, if its type is not among those that are read."""
    return entry.get("resource", {}) is None and entry.get("search", {}).get("mode") == "include"


def _resource_reader(structs: list[inspect.StructType], known: dict[Any, _Read]) -> _Read:
    """Give what reads an element around a resource, such as ``<contained>``: the resource, None if of another type."""
    readers = {f"{_FHIR}{struct.tag}": (struct.tag, _struct_reader(struct, known)) for struct in structs}

    def read(around: Any) -> Any:
        inside = list(around)
        if len(inside) != 1:
            raise _NotFhir
        kind, read_one = readers.get(inside[0].tag, (None, None))
        return None if read_one is None else {"resourceType": kind, **read_one(inside[0])}

    return read


def _struct_reader(struct: inspect.StructType | inspect.TypedDictType, known: dict[Any, _Read]) -> _Read:
    """Give what reads an element's children by the fields that they name; children that are no fields are passed over.

    A field may hold its own struct again, as an extension does: the reader is known before its fields are.
    """
    if struct.cls in known:
        return known[struct.cls]
    fields: dict[str, tuple[str, _Read, bool]] = {}
    has_url = struct.cls is wire.Extension

    def read(element: Any) -> dict[str, Any]:
        content: dict[str, Any] = {"url": element.get("url")} if has_url else {}
        for child in element:
            field = fields.get(child.tag)
            if field is None:
                continue
            name, read_child, many = field
            value = read_child(child)
            if many:
                content.setdefault(name, []).append(value)
            elif name in content:
                raise _NotFhir
            else:
                content[name] = value
        return content

    known[struct.cls] = read
    for field in struct.fields:
        fields[f"{_FHIR}{field.encode_name}"] = (field.encode_name, *_reader_of(field.type, known))
    return read


def _contained(around: Any) -> dict[str, Any]:
    """Read a contained resource; of types other than Medication nothing but the type is of use."""
    kind = etree.QName(around[0]).localname if len(around) == 1 else None
    return {"resourceType": kind, **_medication()(around[0])} if kind == "Medication" else {"resourceType": kind}


@cache
def _medication() -> _Read:
    info = inspect.type_info(wire.Medication)
    if not isinstance(info, inspect.StructType):
        raise _NotFhir
    return _struct_reader(info, {})


def _text(element: Any) -> str | None:
    text: str | None = element.get("value")
    return text


def _number(element: Any) -> float | int | str | None:
    text = _text(element)
    if text is None or not _DECIMAL.match(text):
        return text
    number = int(text) if text.lstrip("-").isdigit() and len(text) < 16 else float(text)
    if math.isinf(number):
        raise _NotFhir
    return number


def _boolean(element: Any) -> bool | str | None:
    text = _text(element)
    return {"true": True, "false": False}.get(text or "", text)
