"""Reading FHIR elements that may be absent, single or many.

Elements are the plain dicts that JSON decodes to: asking for a Mapping instead cost a fifth of the loading time.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any


def each(value: object) -> Iterator[Mapping[str, Any]]:
    """Yield the element, or each element of the list; anything that is no element yields nothing."""
    if isinstance(value, dict):
        yield value
    elif isinstance(value, list):
        for item in value:
            if isinstance(item, dict):
                yield item


def child(value: Mapping[str, Any], name: str) -> Mapping[str, Any]:
    """Give the element under ``name``, empty where there is none."""
    held = value.get(name)
    return held if isinstance(held, dict) else {}


def codings(value: object) -> tuple[tuple[str, str], ...]:
    """Give (system, code) of every coding in one or many CodeableConcepts; a coding without a system has `""`."""
    return tuple(
        (str(coding.get("system", "")), str(coding["code"]))
        for concept in each(value)
        for coding in each(concept.get("coding"))
        if "code" in coding
    )


def identifiers(value: object) -> tuple[tuple[str, str], ...]:
    """Give (system, value) of every Identifier; one without a system has `""`."""
    return tuple((str(held.get("system", "")), str(held["value"])) for held in each(value) if "value" in held)


def reference_text(value: object) -> str | None:
    """Give `Type/id` of a Reference, whatever server stands before it; None where nothing is referred to.

    Source: FHIR R4 references.html#literal.
    """
    if not isinstance(value, dict) or not isinstance(value.get("reference"), str):
        return None
    return local_reference(value["reference"])


def references(value: object) -> tuple[str, ...]:
    """Give `Type/id` of one or many References."""
    return tuple(text for held in each(value) if (text := reference_text(held)) is not None)


def local_reference(text: str) -> str:
    """Drop server and version from a literal reference: `https://h/R4/Patient/1/_history/2` is `Patient/1`."""
    path = text.split("/_history/", 1)[0]
    return "/".join(path.rsplit("/", 2)[-2:]) if path.startswith(("http://", "https://")) else path
