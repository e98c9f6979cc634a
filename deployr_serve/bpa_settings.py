"""The settings of the CDA-XML channel."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import tzinfo
from typing import TYPE_CHECKING

import msgspec

from deployr_core.instants import parse_zone
from deployr_serve.auth_settings import Reader
from deployr_serve.setting_values import existing_file, yes_or_no

if TYPE_CHECKING:
    from deployr_serve.triggers.bpa_answer import Answers
    from deployr_serve.triggers.bpa_request import BpaReader, Paths

_SHORTEST_PASSWORD = 16


@dataclass(frozen=True, kw_only=True, slots=True)
class BpaSettings:
    """How alerts may call. ``callers``: the password of each by name; none of them leaves the route open to all.

    ``strict``: what is wrong with a request is said in its answer, for build and test. ``per_s``: how many requests a
    second each caller may make.
    """

    reader: BpaReader
    answers: Answers
    callers: Mapping[str, str] = field(repr=False)
    strict: bool
    per_s: float


def read_bpa(reader: Reader) -> BpaSettings | None:
    """Read them; None if no root of identifiers is given: then there is no such route.

    What is missing or wrong stands in the reader's problems afterwards.
    """
    roots: dict[str, str] = reader.read("DEPLOYR_BPA_ID_ROOTS", _roots, default={})
    zone = reader.read("DEPLOYR_TIME_ZONE", _zone, default=None)
    paths = reader.read("DEPLOYR_BPA_PATHS", _paths, default=None)
    answers = reader.read("DEPLOYR_BPA_XSLT", _answers, default=None)
    callers: dict[str, str] = reader.read("DEPLOYR_BPA_CALLERS", _callers, default={})
    strict = reader.read("DEPLOYR_BPA_STRICT", yes_or_no, default=False)
    per_s = reader.read("DEPLOYR_BPA_PER_SECOND", _per_second, default=50.0)
    if not roots:
        return None
    # With it comes all that answers a request, and most sites and command lines have no such route.
    from deployr_serve.triggers.bpa_answer import Answers
    from deployr_serve.triggers.bpa_request import Paths, bpa_reader

    try:
        reading = bpa_reader(roots=roots, zone=zone, paths=paths or Paths())
    except ValueError as error:
        reader.problems.setdefault("DEPLOYR_BPA_PATHS", str(error))
        return None
    return BpaSettings(reader=reading, answers=answers or Answers(), callers=callers, strict=strict, per_s=per_s)


def bpa_too_weak_for_production(bpa: BpaSettings | None) -> dict[str, str]:
    """Name what is only good enough for trying out, by setting."""
    problems = {}
    if bpa is not None and not bpa.callers:
        problems["DEPLOYR_BPA_CALLERS"] = "expected at least one caller in the prod profile"
    if bpa is not None and bpa.strict:
        problems["DEPLOYR_BPA_STRICT"] = "expected 0 in the prod profile: a clinician's alert must not see an error"
    return problems


def _roots(text: str) -> dict[str, str]:
    found: dict[str, str] = {}
    for part in text.split(","):
        root, _, id_type = (piece.strip() for piece in part.partition("="))
        if not root or not id_type or root in found or " " in root:
            raise ValueError("expected root=type, a comma between, each root once, such as 1.2.3.4=MRN,1.2.3.5=FHIR")
        found[root] = id_type
    return found


def _zone(text: str) -> tzinfo | None:
    return parse_zone(text)


def _paths(text: str) -> Paths | None:
    from deployr_serve.triggers.bpa_request import Paths

    try:
        return msgspec.json.decode(_content(text), type=Paths)
    except msgspec.MsgspecError as error:
        raise ValueError(f"expected a JSON file of XPaths: {error}") from None


def _answers(text: str) -> Answers | None:
    from deployr_serve.triggers.bpa_answer import Answers
    from deployr_serve.triggers.bpa_xml import Stylesheet

    return Answers(Stylesheet(_content(text)))


def _callers(text: str) -> dict[str, str]:
    try:
        callers = msgspec.json.decode(text, type=dict[str, str])
    except msgspec.MsgspecError:
        callers = {}
    if not callers or any(":" in name or not name or len(word) < _SHORTEST_PASSWORD for name, word in callers.items()):
        raise ValueError(
            f"expected a JSON object of passwords by caller, each of at least {_SHORTEST_PASSWORD} characters"
        )
    return callers


def _per_second(text: str) -> float:
    try:
        number = float(text)
    except ValueError:
        number = 0.0
    if not 0.01 <= number <= 10_000:
        raise ValueError("expected 0.01 to 10000 requests a second")
    return number


def _content(name: str) -> bytes:
    return existing_file(name).read_bytes()
