"""Packets of nobody: a season of a model in service, with a trial, drift, failures and labels, from a seed."""

from __future__ import annotations

from datetime import UTC, datetime
from pathlib import Path

import msgspec
import numpy as np
import pandas as pd
import pyarrow as pa

from deployr_core.bundle import (
    FEATURES_FILE,
    GOLDEN_FILE,
    MANIFEST_FILE,
    SCHEMA_VERSION,
    Estimate,
    Evaluation,
    Manifest,
    Part,
    Task,
    Training,
)
from deployr_core.declared import EdgeBins
from deployr_core.features import AgeGroup, FeatureSpec, SexGroup
from deployr_core.label_rules import LabComponent
from deployr_core.model_format import MODEL_FILE
from deployr_core.outputs import BINARY
from deployr_dash.frames import FEATURES_SCHEMA, PACKETS_SCHEMA
from deployr_dash.panels.panel import View, Window
from deployr_dash.parts import FEATURES, MODELS, PACKETS, Index, PartWriter, write_index

START, NOW = datetime(2015, 1, 1, tzinfo=UTC), datetime(2015, 4, 1, tzinfo=UTC)
DIGEST = "d" * 64
_AGES = EdgeBins(edges=(0.0, 18.0, 40.0, 65.0, 80.0, 130.0))
SPEC = FeatureSpec(schema_version=1, groups=(AgeGroup(bins=_AGES), SexGroup()))


def packets(
    n: int = 3000, *, model_id: str = "hematocrit", seed: int = 3, days: int = 90, trial: bool = True
) -> pd.DataFrame:
    """Give ``n`` packets from 1 January 2015 on, in the table of packets' columns and types."""
    rng = np.random.default_rng(seed)
    at = np.sort(rng.integers(0, days * 86_400, n))
    # Half of the nights are quiet.
    hour = (at // 3600) % 24
    at = np.where((hour < 6) & (rng.random(n) < 0.6), at + 8 * 3600, at)
    at = np.clip(np.sort(at), 0, days * 86_400 - 1)
    received = pd.Timestamp(START) + pd.to_timedelta(at, unit="s")
    patient = rng.integers(0, max(1, n // 3), n)
    frailty = rng.normal(size=max(1, n // 3))[patient]
    sex = np.where(patient % 2 == 0, "female", "male")
    age = np.array(["[18,40)", "[40,65)", "[65,80)", "[80,)"])[patient % 4]
    race = np.array(["White", "Black or African American", "Asian", "unknown"])[np.minimum(patient % 10 // 3, 3)]
    told = rng.normal(size=n) * np.where(age == "[80,)", 0.5, 1.2)
    risk = 1 / (1 + np.exp(-(-0.9 + told + 0.6 * frailty)))
    score = np.clip(1 / (1 + np.exp(-(-0.7 + 1.15 * told + 0.3 * frailty + 0.2 * (at > 60 * 86_400)))), 0, 1)
    kind = rng.choice(["scored", "abstained", "failed", "rejected"], n, p=[0.95, 0.025, 0.018, 0.007])
    is_scored = kind == "scored"
    reasons = {
        "abstained": ["sparse", "out-of-cohort"],
        "failed": ["emr-timeout", "deadline"],
        "rejected": ["unknown-patient"],
    }
    reason = np.array([rng.choice(reasons[each]) if each in reasons else None for each in kind], dtype=object)
    latency = np.round(np.exp(rng.normal(5.6, 0.45, n)) + np.where(kind == "failed", 1500, 0))
    threshold = 0.6
    arm_of = rng.integers(0, 2, max(1, n // 3))
    shows = (arm_of[patient] == 1) & trial
    above = score >= threshold
    p_shown = np.where(above, 0.9, 0.05)
    explored = rng.random(n) < p_shown
    shown = shows & explored & is_scored
    helped = np.where(shown & above, 0.75, 1.0)
    outcome = (rng.random(n) < risk * helped).astype(float)
    ripe = received + pd.Timedelta(hours=72)
    censored = rng.random(n) < 0.06
    is_ripe = ripe <= pd.Timestamp(NOW)
    labelled = is_scored & is_ripe & (rng.random(n) < 0.99)
    label_kind = np.where(labelled, np.where(censored, "censored", "observed"), None)
    observed = label_kind == "observed"
    answer = rng.random(n)
    response = np.where(
        shown, np.where(answer < 0.42, "accepted", np.where(answer < 0.8, "overridden", "no-response")), None
    )
    silent = ~np.full(n, trial)
    columns: dict[str, object] = {
        "row": np.arange(n),
        "packet_id": [f"p{place:031x}" for place in range(n)],
        "model_id": [model_id] * n,
        "version": np.where(at < 45 * 86_400, "0a1b2c", "3d4e5f"),
        "bundle_sha256": [DIGEST] * n,
        "site": ["site"] * n,
        "environment": ["test"] * n,
        "channel": rng.choice(["json", "cds-hooks"], n, p=[0.8, 0.2]),
        "as_of": received,
        "received_at": received,
        "started_at": received,
        "ended_at": received + pd.to_timedelta(latency, unit="ms"),
        "latency_ms": latency,
        "kind": kind,
        "reason": reason,
        "score": np.where(is_scored, score, np.nan),
        "outputs": [None] * n,
        "mode": np.where(silent, "silent", "trial"),
        "advised": pd.array(np.where(is_scored, shown, None), dtype="boolean"),
        "why": np.where(shown, "advised", np.where(is_scored, "below-threshold", None)),
        "threshold": np.where(is_scored, threshold, np.nan),
        "eligible": pd.array(is_scored & trial, dtype="boolean"),
        "emr_calls": rng.integers(4, 9, n),
        "emr_ms": latency * 0.8,
        "searches": [[("labs", float(each * 0.7)), ("conditions", float(each * 0.4))] for each in latency],
        "features_present": [None] * n,
        "sex": np.where(is_scored, sex, None),
        "age_band": np.where(is_scored, age, None),
        "race": np.where(is_scored, race, None),
        "patient_code": patient,
        "shown_at": pd.Series(received).where(shown),
        "response": response,
        "response_reason": np.where((response == "overridden") & (answer < 0.7), "known-already", None),
        "deliveries_pending": np.zeros(n, dtype=int),
        "deliveries_sent": (is_scored & trial).astype(int),
        "deliveries_dead": ((rng.random(n) < 0.004) & is_scored).astype(int),
        "deliveries_superseded": np.zeros(n, dtype=int),
        "deliveries_expired": np.zeros(n, dtype=int),
        "label_rule": ["lab-component"] * n,
        "label_kind": label_kind,
        "label_value": np.where(observed, outcome, np.nan),
        "label_ripe_at": pd.Series(ripe).where(is_scored),
        "label_reason": np.where(label_kind == "censored", "no-result", None),
    }
    if trial:
        columns |= {
            "trial_id": ["show-or-not"] * n,
            "trial_version": [1] * n,
            "arm": np.where(arm_of[patient] == 1, "shown", "control"),
            "p_arm": [0.5] * n,
            "unit": ["patient"] * n,
            "stratum": np.array(["medicine", "surgery", "intensive-care"])[patient % 3],
            "unit_code": patient,
            "shown_by_design": shown,
            "p_shown": p_shown * 0.5,
        }
    table = pa.table(
        [
            pa.array(columns[field.name], from_pandas=True).cast(field.type)
            if field.name in columns and not pa.types.is_map(field.type)
            else pa.array(columns.get(field.name, [None] * n), type=field.type)
            if pa.types.is_map(field.type)
            else pa.nulls(n, field.type)
            for field in PACKETS_SCHEMA
        ],
        schema=PACKETS_SCHEMA,
    )
    return table.to_pandas()


def manifest(model_id: str = "hematocrit") -> Manifest:
    """Give a manifest as training would write it."""
    return Manifest(
        schema_version=SCHEMA_VERSION,
        model_id=model_id,
        version="3d4e5f",
        task=Task(
            name=model_id,
            unit="one order for a complete blood count",
            index_time="when the order is signed",
            label="the hematocrit lies outside its own reference range",
            rule=LabComponent(components=("4544-3", "20570-8"), window_hours=72),
            panels=("57021-8",),
            outputs=BINARY,
        ),
        score_name="SCORE",
        n_features=12,
        spec_sha256="5" * 64,
        parts={name: Part(sha256="a" * 64, size=1) for name in (FEATURES_FILE, MODEL_FILE, GOLDEN_FILE)},
        training=Training(
            estimator="RandomForestClassifier",
            parameters={},
            rows=11_600,
            patients=4_200,
            label_means={"positive": 0.314},
            snapshot_sha256="b" * 64,
            library_versions={},
        ),
        evaluation=Evaluation(
            rows=5000,
            patients=1800,
            label_means={"positive": 0.31},
            figures={
                "auroc": Estimate(value=0.79, low=0.77, high=0.81),
                "average_precision": Estimate(value=0.62, low=0.59, high=0.65),
                "brier_score": Estimate(value=0.17, low=0.16, high=0.18),
            },
        ),
    )


def view(frame: pd.DataFrame, *, first_day: int = 0, last_day: int = 90, only_ripe: bool = True) -> View:
    """Give a view of the days from ``first_day`` to before ``last_day``, the days before it the earlier period."""
    window = Window(
        start=START + pd.Timedelta(days=first_day).to_pytimedelta(),
        end=START + pd.Timedelta(days=last_day).to_pytimedelta(),
    )
    at = frame["received_at"]
    inside = (at >= pd.Timestamp(window.start)) & (at < pd.Timestamp(window.end))
    return View(
        model_id="hematocrit",
        packets=frame.loc[inside].reset_index(drop=True),
        before=frame.loc[at < pd.Timestamp(window.start)].reset_index(drop=True),
        window=window,
        now=NOW,
        manifests={"3d4e5f": manifest()},
        only_ripe=only_ripe,
        resamples=60,
    )


def write_extract(folder: Path, *frames: pd.DataFrame, with_bundles: bool = True, generation: int = 1) -> None:
    """Write packets as `deployr monitor extract` would, one part a model, with one model's manifest."""
    folder.mkdir(parents=True, exist_ok=True)
    parts, vectors = [], []
    for number, frame in enumerate(frames):
        model_id = str(frame["model_id"].iloc[0])
        table = pa.Table.from_pandas(frame, schema=PACKETS_SCHEMA, preserve_index=False)
        with PartWriter(folder, f"{PACKETS}/{number}.parquet", PACKETS_SCHEMA).open() as writer:
            writer.add(table)
        part = writer.part(model_id=model_id, month="2015-01")
        assert part is not None
        parts.append(part)
        scored = frame.loc[(frame["kind"] == "scored") & (frame["version"] == "3d4e5f")]
        rows = pa.table(
            {
                "row": pa.array(scored["row"], pa.int64()),
                "received_at": pa.array(scored["received_at"], FEATURES_SCHEMA.field("received_at").type),
                "index": pa.array([[2, 7]] * len(scored), FEATURES_SCHEMA.field("index").type),
                "value": pa.array([[1.0, 1.0]] * len(scored), FEATURES_SCHEMA.field("value").type),
            },
            schema=FEATURES_SCHEMA,
        )
        with PartWriter(folder, f"{FEATURES}/{number}.parquet", FEATURES_SCHEMA).open() as writer:
            writer.add(rows)
        vector = writer.part(model_id=model_id, month="2015-01", version="3d4e5f")
        if vector is not None:
            vectors.append(vector)
        if with_bundles:
            place = folder / MODELS / f"{number:064x}"
            place.mkdir(parents=True)
            (place / MANIFEST_FILE).write_bytes(msgspec.json.encode(manifest(model_id)))
            (place / FEATURES_FILE).write_bytes(SPEC.to_json())
    write_index(folder, Index(generation=generation, extracted_at=NOW, packets=tuple(parts), features=tuple(vectors)))
