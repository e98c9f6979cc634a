"""The silent trial's decisions, each by itself: clocks, ways, figures, cohorts, what processes use."""

from __future__ import annotations

from collections import Counter
from datetime import UTC, datetime, timedelta
from pathlib import Path

import msgspec
import pytest

from deployr_cli.demo.events import OrderSigned
from deployr_cli.trial.cohorts import cohort_figures
from deployr_cli.trial.figures import Estimated, TaskFigures, TrialFigures
from deployr_cli.trial.hospital import TrialOrder, next_after
from deployr_cli.trial.models import GROUPS
from deployr_cli.trial.paper import TABLE_1, TABLE_2
from deployr_cli.trial.replay import AT_ONCE, LONGEST_AS_HOOK, LONGEST_UNDER_WAY, Way, holds_until, may_go_on, way_of
from deployr_cli.trial.tables import fall
from deployr_cli.trial.usage import Growth, ProcessorTime, growth, processor_time, resident_mb
from deployr_core.codes import Code
from deployr_core.facts import BirthDate, Demographics, Sex

SIGNED = datetime(2025, 3, 17, 6, 30, tzinfo=UTC)
MINUTE = timedelta(minutes=1)


def order(*, stands_until: datetime | None = None, patient: str = "p1", at: datetime = SIGNED) -> TrialOrder:
    event = OrderSigned(patient_id=patient, encounter_id="e1", order_id=f"o-{patient}", signed_at=at)
    return TrialOrder(event=event, group=GROUPS[0], chart_stands_until=stands_until)


def test_twelve_models_are_asked_in_three_groups_and_each_has_its_row_of_the_paper() -> None:
    assert [len(group.tasks) for group in GROUPS] == [4, 7, 1]
    assert {task for group in GROUPS for task in group.tasks} == set(TABLE_2)
    assert {group.name for group in GROUPS} == set(TABLE_1)


def test_of_twenty_orders_ten_go_as_bpa_nine_as_json_and_one_as_cds_hooks() -> None:
    assert Counter(way_of(number) for number in range(20)) == {Way.BPA: 10, Way.JSON: 9, Way.CDS_HOOKS: 1}
    assert way_of(20) is way_of(0)


def test_clocks_do_not_reach_the_instant_at_which_the_chart_of_an_order_under_way_changes() -> None:
    limit = holds_until(order(stands_until=SIGNED + MINUTE), Way.CDS_HOOKS)

    assert may_go_on([limit], at=SIGNED + MINUTE - timedelta(microseconds=1))
    assert not may_go_on([limit], at=SIGNED + MINUTE)


def test_clocks_wait_for_an_order_whose_chart_never_changes_after_the_longest_time_under_way() -> None:
    for stands_until in (None, SIGNED + timedelta(days=1)):
        asked = order(stands_until=stands_until)
        assert holds_until(asked, Way.JSON) == SIGNED + LONGEST_UNDER_WAY
        assert holds_until(asked, Way.CDS_HOOKS) == SIGNED + LONGEST_AS_HOOK


def test_no_more_orders_are_under_way_than_at_once() -> None:
    limits = [SIGNED + MINUTE] * AT_ONCE

    assert not may_go_on(limits, at=SIGNED)
    assert may_go_on(limits[1:], at=SIGNED)


def test_a_change_at_the_very_instant_of_an_order_is_seen_by_it_and_is_not_the_next() -> None:
    changes = [SIGNED - MINUTE, SIGNED, SIGNED + MINUTE]

    assert next_after(changes, SIGNED) == SIGNED + MINUTE
    assert next_after(changes, SIGNED + MINUTE) is None


def test_cohort_counts_patients_once_and_orders_all() -> None:
    events = [order(patient=patient).event for patient in ("p1", "p1", "p2")]
    people = {
        1: Demographics(birth_date=BirthDate(year=1960, month=3, day=17), sex=Sex.FEMALE, races=(), ethnicities=()),
        2: Demographics(
            birth_date=BirthDate(year=1985, month=3, day=18),
            sex=Sex.MALE,
            races=(Code(system="urn:oid:2.16.840.1.113883.6.238", value="2106-3"),),
            ethnicities=(),
        ),
    }

    cohort = cohort_figures(events, persons={"p1": 1, "p2": 2}, people=people)

    assert (cohort.orders, cohort.patients) == (3, 2)
    assert cohort.mean_age == (65 + 39) / 2
    assert (cohort.female, cohort.white, cohort.asian) == (1 / 2, 1 / 2, 0.0)


def test_cohort_of_no_order_has_no_figures() -> None:
    assert cohort_figures([], persons={}, people={}).mean_age is None


@pytest.mark.parametrize("kind", ["lost", "unfinished", "failed", "unlabelled"])
def test_one_packet_that_is_not_as_it_should_be_is_complained_of(kind: str) -> None:
    counts = {"lost": 0, "unfinished": 0, "failed": 0, "unlabelled": 0}

    assert figures(**counts).complaints == ()
    assert len(figures(**{**counts, kind: 1}).complaints) == 1


def figures(**counts: int) -> TrialFigures:
    return TrialFigures(
        tasks={},
        orders=1,
        packets=4,
        censored={},
        seconds=1.0,
        orders_per_second=1.0,
        processor_s={},
        memory_mb={},
        **counts,
    )


def test_fall_is_the_mean_over_the_measured_tasks_beside_that_of_the_paper_over_the_same() -> None:
    def side(auroc: float | None) -> Estimated:
        return Estimated(n=9, prevalence=0.5, auroc=auroc, low=auroc, high=auroc)

    found = figures(lost=0, unfinished=0, failed=0, unlabelled=0)
    tasks = {
        "hematocrit": TaskFigures(retrospective=side(0.9), prospective=side(0.8)),
        "wbc": TaskFigures(retrospective=side(0.7), prospective=side(0.74)),
        "sodium": TaskFigures(retrospective=side(0.7), prospective=side(None)),
    }

    # The paper: hematocrit .86 and .83, leukocytes .76 and .69.
    assert fall(msgspec.structs.replace(found, tasks=tasks)) == (
        "The AUROC fell for 1 of 2 models, in the mean from 0.800 to 0.770; the paper's from 0.810 to 0.760."
    )
    assert fall(found) == ""


def test_processor_time_is_parted_into_first_thread_and_others(tmp_path: Path) -> None:
    for thread, ticks in (("7", 100), ("8", 30), ("9", 20)):
        folder = tmp_path / "7" / "task" / thread
        folder.mkdir(parents=True)
        before = " ".join(["0"] * 10)
        (folder / "stat").write_text(f"{thread} (py (x) thon) S {before} {ticks} {ticks} 0", encoding="ascii")

    used = processor_time(7, proc=tmp_path)

    assert used is not None
    assert used.first_thread_s == pytest.approx(4 * used.others_s / 2)
    assert used.since(used) == ProcessorTime(first_thread_s=0.0, others_s=0.0)


def test_a_process_that_is_gone_has_no_figures(tmp_path: Path) -> None:
    assert processor_time(7, proc=tmp_path) is None
    assert resident_mb(7, proc=tmp_path) is None


def test_growth_compares_the_first_quarter_with_the_last_and_leaves_out_too_short_a_series() -> None:
    readings = {"EMR": [10.0, 12.0, 50.0, 50.0, 50.0, 50.0, 20.0, 22.0], "host 1": [1.0, 2.0, 3.0]}

    assert growth(readings) == {"EMR": Growth(first_mb=11.0, last_mb=21.0)}
