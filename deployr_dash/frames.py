"""The tables that monitoring reads: every column with its type and what it means, in this one place.

None of them holds an identity: patients, clinicians and units of a trial are whole numbers of one extract, and neither
FHIR ids, callers, comments nor the ids of facts have a column.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

import pyarrow as pa

INSTANT = pa.timestamp("us", tz="UTC")
TEXT = pa.string()
WORD = pa.dictionary(pa.int32(), pa.string())
"""A text of which there are few; in pandas a categorical."""
NUMBER, YES = pa.float64(), pa.bool_()
COUNT, CODE = pa.int32(), pa.int64()
NUMBERS_BY_NAME = pa.map_(pa.string(), pa.float64())
COUNTS_BY_NAME = pa.map_(pa.string(), pa.int32())

SEVERAL = "Several"
"""In place of a category, where more than one of its group is set; where none is, `NOT_RECORDED`."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Column:
    """One column: null where its meaning does not apply."""

    name: str
    kind: pa.DataType
    meaning: str


def _columns(*rows: tuple[str, pa.DataType, str]) -> tuple[Column, ...]:
    return tuple(Column(name=name, kind=kind, meaning=meaning) for name, kind, meaning in rows)


PACKETS = _columns(
    # Which inference
    ("row", CODE, "the packet's number in this extract, from 0; joins the features, and never changes"),
    ("packet_id", TEXT, "the inference, by its keyed hash"),
    ("model_id", WORD, "the model"),
    ("version", WORD, "of its bundle; empty where there was none that could be used"),
    ("bundle_sha256", WORD, "of the bundle's manifest; empty like the version"),
    ("site", WORD, "whose app it was"),
    ("environment", WORD, "of the EMR"),
    ("channel", WORD, "json, bpa, cds-hooks or batch; shadow of what a shadow scored"),
    ("shadow_of", TEXT, "the champion's packet whose facts a shadow scored; null of everything that was asked for"),
    # When
    ("as_of", INSTANT, "the event's time: what the windows of features look back from, and those of labels on"),
    ("received_at", INSTANT, "when we were asked; windows of monitoring are of this instant"),
    ("started_at", INSTANT, "when the attempt began that ended it"),
    ("ended_at", INSTANT, "when its answer stood; null while there is none"),
    ("latency_ms", NUMBER, "from received_at to ended_at; null too where a replay moved the clock"),
    # What came of it
    ("kind", WORD, "received, scored, abstained, failed or rejected"),
    ("reason", WORD, "why it was abstained, failed or rejected: a code of docs/glossary.md"),
    ("score", NUMBER, "the headline: a probability from 0 to 1, or a number in value_unit"),
    ("value_unit", WORD, "of the score; null where it is a probability"),
    ("outputs", NUMBERS_BY_NAME, "every class's or label's probability; null where the score is all there is"),
    (
        "answered_by",
        WORD,
        "what a model that answers elsewhere calls itself; null of a bundle's own, or if it tells none",
    ),
    # What was decided
    ("mode", WORD, "silent, trial or live"),
    ("advised", YES, "whether it was decided to show the advisory"),
    ("why", WORD, "a code of docs/glossary.md: advised, or what spoke against it"),
    ("threshold", NUMBER, "in force; the score reaches it from it on"),
    ("band", WORD, "of the score, where the deployment has bands"),
    ("eligible", YES, "whether the unit takes part in the trial"),
    ("trial_id", WORD, "the trial"),
    ("trial_version", COUNT, "of its declaration; with another one every unit is assigned anew"),
    ("arm", WORD, "which the unit was assigned to"),
    ("p_arm", NUMBER, "the chance of that arm; of a stepped wedge, in that period"),
    ("unit", WORD, "what is assigned as a whole: patient, encounter, order, provider, department or time-block"),
    (
        "stratum",
        WORD,
        "of the unit when it was assigned, as the channel told it; several texts in the deployment file's order, which"
        " names them; null without strata",
    ),
    ("unit_code", CODE, "the unit of randomization, a number of this extract; another one in each trial and version"),
    (
        "wedge_cluster",
        COUNT,
        "of a stepped wedge: which of the deployment file's clusters, from 1; null of other trials",
    ),
    ("wedge_period", COUNT, "of a stepped wedge: how many of its steps had been taken; null of other trials"),
    ("shown_by_design", YES, "whether arm and exploration have it shown"),
    (
        "p_shown",
        NUMBER,
        "the chance of being shown, given the score, over arm and exploration: design weights are 1 / p_shown of what"
        " was shown, and 1 / (1 - p_shown) of what was not",
    ),
    ("patient_code", CODE, "the patient, a number of this extract; null in packets that were not migrated"),
    ("clinician_code", CODE, "for whom it was asked, a number of this extract; null where the channel does not say"),
    # How it went
    ("emr_calls", COUNT, "requests to the EMR, repeats and pages included"),
    ("emr_ms", NUMBER, "from the first search's start to the last one's end; null without one, and like latency_ms"),
    ("searches", NUMBERS_BY_NAME, "milliseconds by what was searched for; they run beside each other"),
    (
        "features_present",
        COUNTS_BY_NAME,
        "features that something known has set, by group, without demographics; null without the model's declaration",
    ),
    # Whom it is about, as far as the model sees it
    ("sex", WORD, "as the model saw it; not recorded where none is set; null where the model does not look, as below"),
    ("age_band", WORD, "the bin of the model's ages in years, such as 40 to 64"),
    ("race", WORD, "an OMB category, or the model's own group; Several where more than one is set"),
    ("ethnicity", WORD, "an OMB category, or the model's own group"),
    # Whom it is about, as the EMR says and the model does not see
    ("language", WORD, "the preferred one, by its primary subtag such as es; null where it is not known"),
    ("insurance", WORD, "who pays: public, private, self-pay, other or several; null where nobody asked or said"),
    # What clinicians saw and did
    ("shown_at", INSTANT, "when the advisory was shown first"),
    ("response", WORD, "accepted, overridden or acknowledged: the first; no-response once it is too late for one"),
    ("response_reason", WORD, "the code of the clinician's reason"),
    ("response_at", INSTANT, "when they answered; null for no-response"),
    ("deliveries_pending", COUNT, "to be sent"),
    ("deliveries_sent", COUNT, "accepted by the EMR"),
    ("deliveries_dead", COUNT, "given up"),
    ("deliveries_superseded", COUNT, "a newer score was there first"),
    ("deliveries_expired", COUNT, "too old to be shown late"),
    # What happened
    ("label_rule", WORD, "the model's rule; of the label where there is one, else by the bundle"),
    ("label_kind", WORD, "observed or censored; null while there is no label"),
    ("label_value", NUMBER, "1 or 0, or a number"),
    ("label_class", WORD, "of several classes, which it was"),
    ("label_values", NUMBERS_BY_NAME, "of several labels, 1 or 0 each"),
    ("label_at", INSTANT, "when it happened"),
    ("label_known_at", INSTANT, "from when on the EMR could have shown it"),
    ("label_attached_at", INSTANT, "when we read it, or last corrected it"),
    ("label_ripe_at", INSTANT, "from when on nothing more can count; null for what has no score, or no bundle here"),
    ("label_reason", WORD, "why it is censored: a code of docs/glossary.md"),
)
"""One row a packet; what was erased on demand has none."""

FEATURES = _columns(
    ("row", CODE, "the packet's, as in the table of packets"),
    ("received_at", INSTANT, "the packet's"),
    ("index", pa.list_(pa.int32()), "columns of the model's vector that are not zero, ascending, from 0"),
    ("value", pa.list_(pa.float32()), "theirs, as the model's trees see them; as many"),
)
"""One row for each packet with a score; apart by model and version, whose declaration names the columns."""

PACKETS_SCHEMA = pa.schema([pa.field(each.name, each.kind) for each in PACKETS])
FEATURES_SCHEMA = pa.schema([pa.field(each.name, each.kind) for each in FEATURES])


def expect_columns(names: Iterable[str]) -> tuple[str, ...]:
    """Give the names as a tuple.

    Raises:
        ValueError: one that the table of packets does not have; the message names it.
    """
    wanted = tuple(names)
    unknown = [name for name in wanted if name not in PACKETS_SCHEMA.names]
    if unknown:
        raise ValueError(f"expected columns of packets, got {', '.join(unknown)}; see deployr_dash/frames.py")
    return wanted
