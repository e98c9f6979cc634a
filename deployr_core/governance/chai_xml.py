"""CHAI's applied model card as XML, by the elements of its schema; what nobody knows is said to be missing."""

from __future__ import annotations

import json
from collections.abc import Iterator, Sequence
from xml.etree import ElementTree as ET

from deployr_core.bundle import Estimate
from deployr_core.governance.card import Card
from deployr_core.governance.chai import ELEMENTS, NAMESPACE, RESULTS, Element
from deployr_core.governance.facts import how_to_know
from deployr_core.governance.performance import NAMES, Performance
from deployr_core.registry.comparison import Shown

NOT_STATED = "Not stated."
"""What a needed element begins with where nobody knows what it asks; then it says what is missing."""
_METRICS = {"UsefulnessUsabilityEfficacy", "FairnessEquity", "SafetyReliability"}


def chai_xml(card: Card) -> bytes:
    """Give the card as an instance of CHAI's schema v0.2; the same card gives the same bytes.

    Elements that the schema does not want are left out where nothing is known of them.
    """
    root = ET.Element("AppliedModelCard", {"xmlns": NAMESPACE})
    for element in ELEMENTS:
        if not element.is_needed and not any(name in card.known for name in element.facts):
            continue
        place = _place(root, element.path)
        if element.path[-1] == RESULTS:
            for label, value in _results(card, element):
                result = ET.SubElement(place, "MetricResult")
                ET.SubElement(result, "Label").text = label
                ET.SubElement(result, "ValueJson").text = value
        elif element.path[-1] == "Keywords":
            for word in _keywords(card):
                ET.SubElement(place, "Keyword").text = word
        elif element.path[-1] == "Bibliography" and "bibliography" not in card.known:
            # BibTeX: a sentence would be none.
            place.text = ""
        else:
            place.text = _text(card, element.facts)
    ET.indent(root, space="\t")
    body: bytes = ET.tostring(root, encoding="utf-8", short_empty_elements=False)
    return b'<?xml version="1.0" encoding="UTF-8"?>\n' + body + b"\n"


def _place(root: ET.Element, path: Sequence[str]) -> ET.Element:
    """Give the element at a path; those on the way are made where they are not there, after what is there."""
    place = root
    for name in path[:-1]:
        found = place.find(name)
        place = ET.SubElement(place, name) if found is None else found
    return ET.SubElement(place, path[-1])


def _text(card: Card, facts: Sequence[str]) -> str:
    said = [line for name in facts if name in card.known for line in card.known[name].lines]
    missing = [how_to_know(name) for name in facts if name not in card.known]
    if missing:
        said.append(f"{NOT_STATED} {'; '.join(missing)}")
    return "\n".join(said)


def _keywords(card: Card) -> Iterator[str]:
    if "keywords" in card.known:
        words = ",".join(card.known["keywords"].lines).split(",")
        yield from (word.strip() for word in words if word.strip())


def _results(card: Card, element: Element) -> Iterator[tuple[str, str]]:
    """Give figures by their label, in the form of the published examples; at least one, as the schema wants."""
    found = list(_figures(card, next(name for name in element.path if name in _METRICS)))
    # An interval that was not measured is no number: the label says so, and the value is null.
    missing = [name for name in element.facts if name not in card.known]
    yield from found
    if missing or not found:
        yield f"{NOT_STATED} {'; '.join(how_to_know(name) for name in missing)}".strip(), "null"


def _figures(card: Card, metric: str) -> Iterator[tuple[str, str]]:
    served = None if card.service is None else card.service.performance
    sources = (("held out", card.held_out), ("in service here", served if isinstance(served, Performance) else None))
    if metric == "SafetyReliability":
        if card.service is not None:
            yield "Share of requests answered with a score", _value(card.service.answered)
            yield "95th percentile of the time to an answer", _value(card.service.latency_ms, unit="ms")
        return
    for where, performance in sources:
        if performance is None:
            continue
        if metric == "FairnessEquity":
            for group in performance.groups:
                yield f"AUROC of {group.called}, {where}", _value(group.auroc)
        else:
            for name, called in NAMES.items():
                if name in performance.figures:
                    yield f"{called}, {where}", _value(performance.figures[name])


def _value(figure: Shown, *, unit: str | None = None) -> str:
    if not isinstance(figure, Estimate):
        return "null"
    content: dict[str, object] = {
        "kind": "estimate_ci",
        "estimate": figure.value,
        "lower": figure.low,
        "upper": figure.high,
        "level": 95,
    }
    return json.dumps(content if unit is None else {**content, "unit": unit}, separators=(",", ":"))
