"""A stepped wedge from the deployment file to the dashboard: assigned, decided, stored, extracted, and measured.

In the world that is made up here the outcome falls by itself as time passes, and wards differ; whoever compares before
with after takes the trend for the advisory's doing.
"""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from functools import cache
from typing import Any

import msgspec
import numpy as np
import pandas as pd
import pyarrow as pa
import pytest

from deployr_core.monitoring.effects import stepped_wedge
from deployr_core.packet import Label, Mode, Observed, Scored
from deployr_core.trial import Arm, Assignment, Exploration, RandomizationUnit, Trial, assign_cluster, showing
from deployr_core.wedge import SteppedWedge
from deployr_dash.codes import UNIT
from deployr_dash.frames import PACKETS_SCHEMA
from deployr_dash.panels.effects import wedge
from deployr_dash.panels.panel import Points, View, Window
from deployr_dash.records import packet_row, unit_hash_of
from deployr_serve.core.decide import decide
from deployr_serve.core.policy import Policy
from deployr_serve.core.ports import Belongings

EFFECT, TREND, THRESHOLD = -0.10, -0.15, 0.5
WARDS = tuple(f"ward {number}" for number in range(1, 13))
FIRST = datetime(2015, 1, 5, 7, tzinfo=UTC)
STEPS = tuple(FIRST + timedelta(days=30 * step) for step in range(1, 5))
DAYS = 150
METHOD = SteppedWedge(clusters=WARDS, steps=STEPS)
TRIAL = Trial(
    trial_id="stewardship",
    version=1,
    unit=RandomizationUnit.DEPARTMENT,
    arms=(Arm(name="control", shows=False), Arm(name="advisory", shows=True)),
    method=METHOD,
    exploration=Exploration(hide_above=0.05),
)
POLICY = Policy(schema_version=1, model="hematocrit", mode=Mode.TRIAL, threshold=THRESHOLD, trial=TRIAL)


def _assigned(ward: int, day: float, key: bytes) -> Assignment:
    made = assign_cluster(TRIAL, METHOD, key=key, cluster=WARDS[ward], at=FIRST + timedelta(days=day))
    assert made is not None
    return made


def _world(rng: np.random.Generator, orders: int) -> dict[str, np.ndarray]:
    """Give orders: in which ward, on which day, and how likely the outcome is where no advisory works."""
    ward = rng.integers(0, len(WARDS), orders)
    day = np.sort(rng.random(orders) * DAYS)
    habit = rng.normal(0.0, 0.06, len(WARDS))
    return {"ward": ward, "day": day, "anyway": 0.45 + habit[ward] + TREND * day / DAYS, "draw": rng.random(orders)}


def test_a_wedge_that_a_deployment_file_declares_is_found_with_its_effect_on_the_dashboard(packet_of: Any) -> None:
    rng, key = np.random.default_rng(11), b"a secret of the site's own"
    world = _world(rng, 2400)
    rows, codes = [], {}
    for number in range(2400):
        made = _assigned(int(world["ward"][number]), float(world["day"][number]), key)
        at, packet_id = FIRST + timedelta(days=float(world["day"][number])), f"p{number:031x}"
        shown = showing(TRIAL, made, key=key, packet_id=packet_id, score=0.8, threshold=THRESHOLD)
        decision = decide(POLICY, score=0.8, assignment=made, showing=shown)
        happened = world["draw"][number] < world["anyway"][number] + EFFECT * decision.advise
        packet = packet_of(packet_id, as_of=at, started_at=at, updated_at=at)
        assert isinstance(packet.outcome, Scored)
        packet = msgspec.structs.replace(
            packet,
            outcome=msgspec.structs.replace(packet.outcome, score=0.8, decision=decision),
            trigger=msgspec.structs.replace(packet.trigger, received_at=at),
        )
        label = Label(
            label_id=f"{packet_id}.lab-component",
            packet_id=packet_id,
            rule="lab-component",
            outcome=Observed(value=float(happened), at=at, known_at=at, source_id=""),
            attached_at=at,
        )
        unit = codes.setdefault((UNIT, unit_hash_of(packet)), len(codes))
        belongings = Belongings(labels=(label,))
        row = packet_row(packet, belongings, told=None, patient_code=number // 2, unit_code=unit, clinician_code=None)
        rows.append({"row": number, **row})
    frame = pa.Table.from_pylist(rows, schema=PACKETS_SCHEMA).to_pandas()
    window = Window(start=FIRST, end=FIRST + timedelta(days=DAYS))
    shown_panel = wedge(
        View(model_id="hematocrit", packets=frame, before=frame.iloc[:0], window=window, now=window.end, resamples=60)
    )
    assert shown_panel.missing is None
    assert shown_panel.tables[0].table.rows[0][2:] == (12, 5)
    found = _measured(frame)
    # Exploration hides one in twenty.
    assert found.low <= 0.95 * EFFECT <= found.high
    assert any(isinstance(mark, Points) for mark in shown_panel.figures[0].marks)
    by_arm = frame.groupby(frame["arm"].astype(str))["label_value"].mean()
    assert by_arm["advisory"] - by_arm["control"] < 1.4 * EFFECT  # the trend is taken for an effect


def _measured(frame: pd.DataFrame) -> Any:
    return stepped_wedge(
        frame["label_value"].to_numpy(dtype=np.float64),
        (frame["arm"].astype(str) == "advisory").to_numpy(dtype=bool),
        frame["wedge_period"].to_numpy(dtype=np.int64),
        frame["wedge_cluster"].to_numpy(dtype=np.int64),
    )


@pytest.mark.proof
def test_over_many_sites_the_estimate_is_the_effect_and_its_interval_covers_it() -> None:
    repetitions, estimates, covered, naive = 300, [], 0, []
    for site in range(repetitions):
        key = f"the secret of site {site}".encode()
        arm = cache(lambda ward, period, key=key: _assigned(ward, 30.0 * period + 1.0, key))
        world = _world(np.random.default_rng(site), 2400)
        period = (world["day"] // 30.0).astype(np.int64)
        made = [arm(ward, step) for ward, step in zip(world["ward"].tolist(), period.tolist(), strict=True)]
        assert all(
            each.wedge is not None and each.wedge.period == step for each, step in zip(made, period, strict=True)
        )
        treated = np.array([each.arm == "advisory" for each in made])
        outcome = (world["draw"] < world["anyway"] + EFFECT * treated).astype(np.float64)
        found = stepped_wedge(outcome, treated, period, world["ward"])
        estimates.append(found.value)
        covered += found.low <= EFFECT <= found.high
        naive.append(outcome[treated].mean() - outcome[~treated].mean())
    # A repetition's standard deviation is about .035: that of the mean of 300 is .002.
    assert np.mean(estimates) == pytest.approx(EFFECT, abs=0.006)
    assert 0.92 <= covered / repetitions <= 0.98
    assert np.mean(naive) < EFFECT - 0.04
