"""The score column: reading what a model writes, and what the EMR then shows."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import datetime
from typing import Any

import msgspec


class ScoreError(ValueError):
    """The body cannot be filed; the message says what was expected and where."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Feature:
    """What a score was made of, as it was sent: its contribution, None where none was, and its values."""

    name: str
    contribution: str | None = field(repr=False)
    values: tuple[str, ...] = field(repr=False)


@dataclass(frozen=True, kw_only=True)
class Score:
    """What a body asks to be shown: the encounter's CSN, the name of the score, its first value as sent, its features.

    ``features`` stand in the order in which they were sent; one that came with a value alone follows those with a
    contribution.
    """

    csn: str = field(repr=False)
    name: str
    value: str = field(repr=False)
    features: tuple[Feature, ...] = field(default=(), repr=False)


@dataclass(frozen=True, kw_only=True)
class Row:
    """One score as it was filed; ``written_at`` is the EMR's instant."""

    job_id: str
    score: str = field(repr=False)
    written_at: datetime


@dataclass(frozen=True, kw_only=True)
class Cell:
    """Everything that was filed for one encounter by one model, oldest first.

    ``name`` and ``features`` are those of the latest score; no features where they were dropped.
    """

    model_id: str
    csn: str = field(repr=False)
    rows: tuple[Row, ...]
    name: str = ""
    features: tuple[Feature, ...] = field(default=(), repr=False)


def score_in(body: bytes) -> Score:
    """Read the body of a score write, wrapped in `result.results` or flat.

    Raises:
        ScoreError: not JSON; not exactly one EntityId of type CSN; the displayed score is in no output; a
            value is no string.

    Source: wire-formats.md section 3, External model score: (a) wrapped [seen], (b) flat [seen].
    """
    try:
        sent = msgspec.json.decode(body)
    except ValueError as error:
        raise ScoreError("expected a JSON object") from error
    results = _results(_object(sent, "body"))
    csn = _csn(results.get("EntityId"))
    name = results.get("ScoreDisplayed")
    if not isinstance(name, str) or not name:
        raise ScoreError("ScoreDisplayed: expected the name of a score")
    raw = _strings_in(results.get("Raw", {}), "Raw", "Values")
    outputs = _object(results.get("Outputs"), "Outputs")
    shown = [found for key, output in outputs.items() if (found := _shown(output, f"Outputs.{key}", name)) is not None]
    if not shown:
        raise ScoreError("ScoreDisplayed: expected a score that is in Outputs.*.Scores")
    value, contributions = shown[0]
    return Score(csn=csn, name=name, value=value, features=_made_of(contributions, raw))


class ScoreColumn:
    """What the EMR's score column holds, by model and encounter."""

    def __init__(self, *, features_kept: int = 5_000) -> None:
        """Keep what the latest score is made of for so many cells, those written last: it is most of what is sent."""
        self._cells: dict[tuple[str, str], dict[str, Row]] = {}
        self._latest: OrderedDict[tuple[str, str], Score] = OrderedDict()
        self._features_kept = features_kept

    def file(self, score: Score, *, model_id: str, job_id: str, now: datetime) -> bool:
        """File a score; give whether a row was added, which it is not for a job that this cell already has."""
        rows = self._cells.setdefault((model_id, score.csn), {})
        if job_id in rows:
            return False
        rows[job_id] = Row(job_id=job_id, score=score.value, written_at=now)
        self._latest[model_id, score.csn] = score
        self._latest.move_to_end((model_id, score.csn))
        if len(self._latest) > self._features_kept:
            self._latest.popitem(last=False)
        return True

    def cells(self) -> tuple[Cell, ...]:
        """Give every cell, in the order in which they were first written."""
        return tuple(self._cell(*key) for key in self._cells)

    def _cell(self, model_id: str, csn: str) -> Cell:
        latest = self._latest.get((model_id, csn))
        return Cell(
            model_id=model_id,
            csn=csn,
            rows=tuple(self._cells[model_id, csn].values()),
            name="" if latest is None else latest.name,
            features=() if latest is None else latest.features,
        )


def _results(body: Mapping[str, Any]) -> Mapping[str, Any]:
    if "result" not in body:
        return body
    return _object(_object(body["result"], "result").get("results"), "result.results")


def _csn(entities: object) -> str:
    if not isinstance(entities, list) or len(entities) != 1:
        raise ScoreError("EntityId: expected a list of exactly one entity")
    entity = _object(entities[0], "EntityId[0]")
    if entity.get("Type") != "CSN":
        raise ScoreError("EntityId[0].Type: expected CSN")
    csn = entity.get("ID")
    if not isinstance(csn, str) or not csn:
        raise ScoreError("EntityId[0].ID: expected a CSN as text")
    return csn


def _object(value: object, where: str) -> Mapping[str, Any]:
    if not isinstance(value, dict):
        raise ScoreError(f"{where}: expected an object")
    return value


def _shown(output: object, where: str, name: str) -> tuple[str, Mapping[str, list[str]]] | None:
    """Check one output; give the value that is displayed and its contributions, None where it is in another output."""
    checked = _object(output, where)
    scores = _strings_in(checked.get("Scores"), f"{where}.Scores", "Values")
    contributions = _strings_in(checked.get("Features", {}), f"{where}.Features", "Contributions")
    if name not in scores:
        return None
    if not scores[name]:
        raise ScoreError(f"{where}.Scores: expected a value for the score that is displayed")
    return scores[name][0], contributions


def _made_of(contributions: Mapping[str, list[str]], raw: Mapping[str, list[str]]) -> tuple[Feature, ...]:
    """Put what each feature contributed beside its values, by its name."""
    return tuple(
        Feature(name=name, contribution=next(iter(contributions.get(name, ())), None), values=tuple(raw.get(name, ())))
        for name in dict.fromkeys((*contributions, *raw))
    )


def _strings_in(value: object, where: str, member: str) -> dict[str, list[str]]:
    """Check `{name: {member: [string, ...]}}` and give the strings by name."""
    found: dict[str, list[str]] = {}
    for name, item in _object(value, where).items():
        strings = _object(item, f"{where}.{name}").get(member)
        if not isinstance(strings, list) or not all(isinstance(text, str) for text in strings):
            raise ScoreError(f"{where}.{name}.{member}: expected a list of strings")
        found[name] = strings
    return found
