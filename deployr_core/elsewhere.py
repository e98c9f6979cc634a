"""A model that answers elsewhere, over HTTP: what it is asked, what its answer must be, and how it proves itself.

The bundle holds everything but the model: the declaration, the golden rows, and by which name the site knows where the
model is. What is sent are features and nothing else: their names and values, no id and no instant. Bytes in, bytes out;
the network is the edges' work.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from typing import Literal

import msgspec

from deployr_core.outputs import Outputs
from deployr_core.scoring import (
    ModelAway,
    ModelUnusable,
    Reply,
    ScoreInvalid,
    ScorerBase,
    check_width,
    checked_outputs,
)
from deployr_core.vectorize import FeatureVector

Protocol = Literal["deployr", "mlflow", "databricks"]

PREDICTOR_NAME = re.compile(r"[a-z][a-z0-9-]{0,62}[a-z0-9]\Z")
"""What a predictor may be called: it stands in settings and messages."""

_TOLD_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9 ._:/@+-]{0,199}\Z")
"""What an endpoint may call its model: it is stored with every score."""


class PredictorFile(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """What the bundle says of the model: ``model.http.json``. No address and no secret: these are the site's.

    ``predictor``: by which name the site's settings have its address. ``protocol``: see `request_body`. ``columns``:
    where in a row of the answer each output stands; empty: as many as outputs, in their order. ``tolerance``: how far
    at most a golden row's answer may be from what was promised; 0 asks for the same bits.
    """

    predictor: str
    protocol: Protocol = "deployr"
    columns: tuple[int, ...] = ()
    tolerance: float = 0.0

    def __post_init__(self) -> None:
        if not PREDICTOR_NAME.match(self.predictor):
            raise ValueError("expected a predictor of lower-case letters, digits and hyphens, such as sepsis-net")
        if any(column < 0 for column in self.columns):
            raise ValueError("expected columns from 0")
        if not 0.0 <= self.tolerance <= 0.001:
            raise ValueError("expected a tolerance from 0 to 0.001")

    def to_json(self) -> bytes:
        """Give the canonical bytes."""
        return msgspec.json.encode(self, order="sorted")


@dataclass(frozen=True, kw_only=True, slots=True)
class Answered:
    """What came back with status 200. ``answered_by``: what a header of the answer calls the model; None without."""

    body: bytes = field(repr=False)
    answered_by: str | None = None


Ask = Callable[[bytes], Answered]
"""Sends a body as JSON to the predictor and gives its answer.

Raises:
    ModelAway: it cannot be asked now.
    ScoreInvalid: it refused what it was asked.
"""

Reach = Callable[[PredictorFile], Ask]
"""Gives the way to a predictor; raises ModelUnusable where the site's settings have none."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Promise:
    """Rows, and the outputs that the model must give for each."""

    rows: tuple[FeatureVector, ...] = field(repr=False)
    outputs: tuple[tuple[float, ...], ...] = field(repr=False)


class _Ours(msgspec.Struct, frozen=True, kw_only=True):
    rows: tuple[tuple[float, ...], ...]
    answered_by: str | None = None


class _Mlflow(msgspec.Struct, frozen=True, kw_only=True):
    predictions: tuple[float | tuple[float, ...], ...]


def request_body(protocol: Protocol, names: Sequence[str], rows: Sequence[FeatureVector]) -> bytes:
    """Give what a predictor is asked, as JSON.

    ``deployr``: ``{"n_features", "rows": [{name: value}], "spec_sha256"}``, of each row the features that are not 0.
    ``mlflow`` and ``databricks``: ``{"dataframe_split": {"columns", "data"}}`` with every feature.

    Source: MLflow's scoring server, ``/invocations``; Databricks asks for the same.
    """
    if protocol == "deployr":
        told = [
            {names[place]: value for place, value in zip(row.indices.tolist(), row.values.tolist(), strict=True)}
            for row in rows
        ]
        return msgspec.json.encode({"n_features": len(names), "rows": told, "spec_sha256": rows[0].spec_digest})
    return msgspec.json.encode(
        {"dataframe_split": {"columns": list(names), "data": [row.dense().tolist() for row in rows]}}
    )


def replies_of(answer: Answered, file: PredictorFile, outputs: Outputs, *, n_rows: int) -> tuple[Reply, ...]:
    """Read an answer: one reply for each row that was asked about.

    Raises:
        ScoreInvalid: not JSON, another number of rows or outputs, or what is not predicted; see `Scorer.answer`.
    """
    answered_by = answer.answered_by
    try:
        if file.protocol == "deployr":
            ours = msgspec.json.decode(answer.body, type=_Ours)
            rows, answered_by = ours.rows, ours.answered_by or answered_by
        else:
            given = msgspec.json.decode(answer.body, type=_Mlflow).predictions
            rows = tuple(row if isinstance(row, tuple) else (row,) for row in given)
    except (msgspec.MsgspecError, UnicodeDecodeError):
        # Not repeated: it may hold what the model was asked.
        raise ScoreInvalid(f"expected an answer of the protocol {file.protocol}") from None
    if len(rows) != n_rows:
        raise ScoreInvalid(f"expected {n_rows} rows in the answer, got {len(rows)}")
    if answered_by is not None and not _TOLD_NAME.match(answered_by):
        raise ScoreInvalid("expected a model's name of up to 200 letters, digits and ._:/@+-")
    return tuple(
        Reply(outputs=checked_outputs(_picked(row, file.columns), outputs), answered_by=answered_by) for row in rows
    )


def _picked(row: tuple[float, ...], columns: tuple[int, ...]) -> tuple[float, ...]:
    if columns and max(columns) >= len(row):
        raise ScoreInvalid(f"expected at least {max(columns) + 1} numbers in a row of the answer, got {len(row)}")
    return tuple(row[column] for column in columns) if columns else row


class ModelElsewhere(ScorerBase):
    """A model behind an address. It proves itself before its first answer, and whenever it calls itself otherwise.

    To prove itself is to give the golden rows' outputs. One that does not say what it is called proves itself once,
    when it is loaded or first reached; what is behind its address may be exchanged afterwards, and nobody can tell.

    Raises:
        ModelUnusable: the file says nothing usable, or the site has no such predictor.
        ScoreInvalid: it was reached, and its answers are not those that were promised.
    """

    def __init__(
        self, content: bytes, *, names: Sequence[str], outputs: Outputs, golden: Promise, reach: Reach
    ) -> None:
        try:
            self.file = msgspec.json.decode(content, type=PredictorFile)
        except (msgspec.MsgspecError, UnicodeDecodeError) as error:
            raise ModelUnusable(f"expected where a model answers: {error}") from None
        if self.file.columns and len(self.file.columns) != len(outputs.names):
            raise ModelUnusable(f"expected {len(outputs.names)} columns, one for each output")
        self._names = tuple(names)
        self._golden = golden
        self._ask = reach(self.file)
        # Replaced as a whole: several threads ask, and the worst is that one proves it once more.
        self._proven: frozenset[str | None] = frozenset()
        self.outputs = outputs
        # It may be back before it is asked: its own trouble must not cost this app's start.
        with suppress(ModelAway):
            self.prove()

    def answer(self, vector: FeatureVector) -> tuple[float, ...]:
        """Ask about one row; see `deployr_core.scoring.Scorer`."""
        return self.reply(vector).outputs

    def reply(self, vector: FeatureVector) -> Reply:
        """Ask about one row; see `deployr_core.scoring.Scorer`."""
        check_width(vector, len(self._names))
        (reply,) = self._asked((vector,))
        if reply.answered_by not in self._proven:
            proved = self.prove()
            if proved != reply.answered_by:
                raise ModelAway("expected one model behind the address; it is being exchanged")
        return reply

    def prove(self) -> str | None:
        """Ask about the golden rows; give what the model calls itself.

        Raises:
            ModelAway: it cannot be asked now.
            ScoreInvalid: its answers are not those that were promised.
        """
        replies = self._asked(self._golden.rows)
        for number, (reply, wanted) in enumerate(zip(replies, self._golden.outputs, strict=True)):
            apart = max(abs(got - promised) for got, promised in zip(reply.outputs, wanted, strict=True))
            if apart > self.file.tolerance:
                raise ScoreInvalid(f"golden row {number} does not get what was promised, from the model behind it now")
        self._proven |= {replies[0].answered_by}
        return replies[0].answered_by

    def _asked(self, rows: tuple[FeatureVector, ...]) -> tuple[Reply, ...]:
        answer = self._ask(request_body(self.file.protocol, self._names, rows))
        return replies_of(answer, self.file, self.outputs, n_rows=len(rows))
