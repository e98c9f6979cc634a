"""Makes a report from an extract."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from datetime import date, datetime
from pathlib import Path

from deployr_dash.filters import Filters, before, window_of
from deployr_dash.loading import load_frame
from deployr_dash.one_thread import one_thread
from deployr_dash.overview import overview
from deployr_dash.panels.glance import glances
from deployr_dash.panels.panel import Window
from deployr_dash.panels.tabs import TABS
from deployr_dash.parts import Index, read_index
from deployr_dash.plan import read_held_out, read_plans
from deployr_dash.report import Chapter, Report, chapter_of, days, glance_of, passages_of
from deployr_dash.views import (
    COLUMNS,
    as_planned,
    days_of,
    manifests_of,
    usual_first,
    usual_last,
    view_of,
    with_features,
)
from deployr_plots.tables import Table
from deployr_plots.words import count, of

Tell = Callable[[int, int], None]
AlertsOf = Callable[[Window], Mapping[str, Table]]


@dataclass(frozen=True, kw_only=True)
class Asked:
    """What a report is to be about. ``models``: empty is all. ``first`` and ``last``: days of UTC, both included.

    Without days, the last 90 that have packets. ``only_ripe``: leave out labels that came early.
    """

    models: tuple[str, ...] = ()
    first: date | None = None
    last: date | None = None
    only_ripe: bool = True

    def __post_init__(self) -> None:
        if self.first is not None and self.last is not None and self.last < self.first:
            raise ValueError(f"expected --from {self.first} not to be after --to {self.last}")


class NoSuchModel(ValueError):
    """The extract holds nothing of a model that was asked for."""


def make_report(
    extract: Path,
    asked: Asked,
    *,
    made_at: datetime,
    made_by: str,
    plans: Path | None = None,
    alerts: AlertsOf | None = None,
    tell: Tell = lambda done, total: None,  # noqa: ARG005 # whoever does not want to know
) -> Report:
    """Give the report; the same extract and arguments give the same one.

    Args:
        extract: the folder of `deployr monitor extract`.
        asked: what it is to be about.
        made_at: when it is made, aware UTC.
        made_by: who makes it, to be printed.
        plans: a folder with monitoring plans, and with reports of training, for their curves.
        alerts: gives those of a window, by model, worded and ready to be shown, the whole app's under the empty name;
            None where nobody looks for any.
        tell: called with how many parts are done, and of how many.

    Raises:
        ExtractMissing: there is no extract.
        NoSuchModel: a model that was asked for is not in it.
        ReferenceUnusable: a model's reference period; the message says how to make it anew.
        PlanUnusable: a monitoring plan is not one.
    """
    index = read_index(extract)
    models = _models(index, asked)
    extracted = index.extracted_at or made_at
    window = _window(index, asked, extracted)
    agreed, held_out = read_plans(plans), read_held_out(plans)
    raised = None if alerts is None else alerts(window)
    done, total = 0, len(models) * len(TABS)

    def next_one() -> None:
        nonlocal done
        done += 1
        tell(done, total)

    manifests = manifests_of(extract)
    filters = Filters(only_ripe=asked.only_ripe)
    chapters: list[Chapter] = []
    for number, model in enumerate(models, start=1):
        view = view_of(
            load_frame(
                extract,
                model=model,
                since=before(window).start,
                until=window.end,
                columns=(*COLUMNS, "environment"),
            ),
            model=model,
            filters=filters,
            window=window,
            now=extracted,
            manifests=manifests.get(model, {}),
        )
        view = as_planned(view, agreed.get(model), held_out)
        if not view.packets.empty:
            view = with_features(view, extract, filters=filters)
        with one_thread():
            chapters.append(chapter_of(view, number, plan=agreed.get(model), alerts=raised, tell=next_one))
    newest = {model: list(versions.values())[-1] for model, versions in manifests.items()}
    counts = overview(extract, since=window.start.date(), until=window.end.date())
    by_model = {line.model_id: line for line in glances(counts, window, newest, now=extracted)}
    lines = [by_model[model] for model in models if model in by_model]
    named = models[0] if len(models) == 1 else of(len(models), "model")
    return Report(
        title=f"Monitoring report: {named}, {days(window)}",
        window=days(window),
        facts=(
            ("Models", ", ".join(models) or "none: the extract holds no packet yet"),
            ("Days of UTC", f"{days(window)}, both included"),
            ("Packets in these days", count(sum(line.packets for line in lines))),
            ("Outcomes that count", "ripe ones only" if asked.only_ripe else "all that are known so far"),
            ("Extract of the store", f"{extracted:%Y-%m-%d %H:%M} UTC"),
            ("Made", f"{made_at:%Y-%m-%d %H:%M} UTC by {made_by}"),
        ),
        made_at=made_at,
        made_by=made_by,
        glance=glance_of(lines, window, alerts=None if raised is None else raised.get("")),
        chapters=tuple(chapters),
        passages=passages_of(only_ripe=asked.only_ripe, alerts_are_shown=raised is not None),
    )


def _models(index: Index, asked: Asked) -> tuple[str, ...]:
    known = sorted({part.model_id for part in index.packets})
    if missing := [model for model in asked.models if model not in known]:
        held = ", ".join(known) or "no model yet"
        raise NoSuchModel(f"expected models of the extract, got {', '.join(missing)}; it holds {held}")
    return tuple(model for model in known if not asked.models or model in asked.models)


def _window(index: Index, asked: Asked, extracted: datetime) -> Window:
    parts = [part for part in index.packets if not asked.models or part.model_id in asked.models]
    first_day, last_day = days_of(parts) if parts else (extracted.date(), extracted.date())
    last_day = usual_last(last_day, extracted)
    last = asked.last or max(last_day, asked.first or last_day)
    first = asked.first or min(usual_first(first_day, last), last)
    return window_of(Filters(first=first, last=last), first_day=first_day, last_day=last_day)
