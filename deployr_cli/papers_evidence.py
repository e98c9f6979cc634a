"""What papers and checklists rest on, read from files: a run's folder, an extract, a parity report."""

from __future__ import annotations

import math
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import msgspec

from deployr_cli.failures import CommandFailed
from deployr_core.bundle import FEATURES_FILE, MANIFEST_FILE, Estimate, Manifest, parse_manifest, sha256_hex
from deployr_core.features import FeatureSpec, parse_feature_spec
from deployr_core.governance.checklist import Parity
from deployr_core.governance.performance import NAMES, GroupPerformance, Performance, Service, shown
from deployr_core.registry.comparison import Shown
from deployr_core.registry.run import BUNDLE_FOLDER, FIGURES_FILE, RUN_FILE, Run, RunInvalid, parse_run

if TYPE_CHECKING:
    from collections.abc import Iterator
    from datetime import datetime

    import numpy as np
    import pandas as pd
    from numpy.typing import NDArray

    from deployr_core.bootstrap import Floats
    from deployr_dev.evaluation.records import Figure, Grouping

_NOBODY_WAITS = ("shadow", "batch")
"""Channels in which no answer is waited for."""
_QUANTILE, _Z_95 = 0.95, 1.959963984540054
_PROPERTIES = {
    "sex": "sex",
    "age_band": "age",
    "race": "race",
    "ethnicity": "ethnicity",
    "language": "language",
    "insurance": "insurance",
}
_COLUMNS = (
    *("model_id", "bundle_sha256", "channel", "received_at", "latency_ms", "kind", "score", "patient_code"),
    *("mode", "label_kind", "label_value", "label_ripe_at", *_PROPERTIES),
)


@dataclass(frozen=True, kw_only=True, slots=True)
class RunFiles:
    """A run as it lies in its folder. ``held_out``: None where there is no report."""

    run: Run
    manifest: Manifest
    spec: FeatureSpec
    held_out: Performance | None


def read_run_files(folder: Path) -> RunFiles:
    """Read a run, of its own folder or of the shelf.

    Raises:
        CommandFailed: a file is missing, or not the run's.
        BundleInvalid: the manifest is none.
    """
    try:
        run = parse_run(_read(folder / RUN_FILE))
    except RunInvalid as error:
        raise CommandFailed(f"{folder}: {error}") from None
    manifest_json, features = (_read(folder / BUNDLE_FOLDER / name) for name in (MANIFEST_FILE, FEATURES_FILE))
    manifest = parse_manifest(manifest_json)
    if sha256_hex(manifest_json) != run.bundle_sha256 or sha256_hex(features) != manifest.parts[FEATURES_FILE].sha256:
        raise CommandFailed(f"{folder / BUNDLE_FOLDER}: expected the bundle that {RUN_FILE} names, got another")
    return RunFiles(
        run=run,
        manifest=manifest,
        spec=parse_feature_spec(features),
        held_out=_held_out(folder / FIGURES_FILE, manifest),
    )


def read_parity(file: Path | None) -> Parity | None:
    """Read what `deployr parity --json` wrote; None without a file.

    Raises:
        CommandFailed: it is none.
    """
    if file is None:
        return None
    try:
        told = msgspec.json.decode(_read(file), type=_ParityReport)
    except (msgspec.DecodeError, UnicodeDecodeError) as error:
        raise CommandFailed(f"{file}: expected the JSON of deployr parity: {error}") from None
    return Parity(orders=told.orders, compared=told.features_compared, equal=told.features_equal)


def read_service(extract: Path, run: Run) -> Service | None:
    """Give what a run's bundle answered, as the champion and as a shadow, by an extract; None if nothing.

    Raises:
        ExtractMissing, ExtractUnusable: there is no extract.
    """
    import pandas as pd

    from deployr_dash.loading import load_frame
    from deployr_dash.parts import read_index

    index = read_index(extract)
    served = [load_frame(extract, model=name, columns=_COLUMNS) for name in (run.model_id, run.run_id)]
    frame = pd.concat([each.loc[each["bundle_sha256"] == run.bundle_sha256] for each in served], ignore_index=True)
    if frame.empty or index.extracted_at is None:
        return None
    return service_of(frame, now=index.extracted_at)


def service_of(frame: pd.DataFrame, *, now: datetime) -> Service:
    """Measure what one bundle answered.

    Args:
        frame: its packets, at least one, with the columns that are asked for above.
        now: when the extract was made: outcomes that are due later are not looked at, for those that come early are
            not like the others.
    """
    from deployr_dash.panels.panel import is_ripe, patients_of

    patients = patients_of(frame)
    scored = (frame["kind"] == "scored").to_numpy(dtype=bool)
    ripe = scored & is_ripe(frame["label_ripe_at"], now=now)
    observed = (frame["label_kind"] == "observed").to_numpy(dtype=bool)
    decided = frame["label_kind"].notna().to_numpy(dtype=bool)
    days = (frame["received_at"].max().normalize() - frame["received_at"].min().normalize()).days + 1
    waited = (~frame["channel"].isin(_NOBODY_WAITS) & frame["latency_ms"].notna()).to_numpy(dtype=bool)
    # Where a score was shown, what happened may be what was done about it: only what nobody saw tells how true it is.
    unseen = (frame["mode"] == "silent").to_numpy(dtype=bool)
    counts = ripe & observed & unseen & frame["label_value"].notna().to_numpy(dtype=bool)
    return Service(
        days=int(days),
        requests=len(frame),
        answered=_share(scored, patients),
        ripe=int(ripe.sum()),
        labelled=_share(decided[ripe], patients[ripe]),
        observed=_share(observed[ripe], patients[ripe]),
        latency_ms=percentile_95(frame["latency_ms"].to_numpy(dtype=float)[waited]),
        performance=_performance(frame.loc[counts], patients[counts]),
    )


def percentile_95(values: Floats) -> Shown:
    """Give the 95th percentile with a 95 % interval between two order statistics, or say why there is none.

    Answers count as independent. Source: W. J. Conover (1999), Practical Nonparametric Statistics, 3rd ed., 3.2.
    """
    import numpy as np

    n = len(values)
    middle, margin = n * _QUANTILE, _Z_95 * math.sqrt(n * _QUANTILE * (1 - _QUANTILE))
    low, high = math.ceil(middle - margin), math.ceil(middle + margin)
    if low < 1 or high > n:
        return "too few answers that somebody waited for" if n else "no answer that somebody waited for"
    ordered = np.sort(values)
    return Estimate(
        value=float(ordered[math.ceil(middle) - 1]), low=float(ordered[low - 1]), high=float(ordered[high - 1])
    )


def _performance(frame: pd.DataFrame, patients: NDArray[np.int64]) -> Performance | str:
    import numpy as np

    from deployr_core.bootstrap import NotMeasurable
    from deployr_core.monitoring.binary import binary_performance
    from deployr_core.monitoring.subgroups import TooSmall, binary_subgroups
    from deployr_dash.panels.panel import resamples_for, words_of

    labels = frame["label_value"].to_numpy(dtype=float)
    scores = frame["score"].to_numpy(dtype=float)
    if not np.isin(labels, (0.0, 1.0)).all() or ((scores < 0) | (scores > 1)).any():
        return "the model does not predict one outcome's probability; its figures are in the dashboard"
    try:
        resamples = resamples_for(len(frame))
        found = binary_performance(
            labels, scores, patients, rng=np.random.default_rng(0), alert_rates=(), resamples=resamples
        )
        known = {called: words_of(frame[name]) for name, called in _PROPERTIES.items() if frame[name].notna().any()}
        groups = binary_subgroups(
            labels, scores, patients, known, rng=np.random.default_rng(0), resamples=resamples
        ).tables
    except NotMeasurable as error:
        return f"no outcome that is due was observed of a packet in silent mode: {error}"
    return Performance(
        rows=found.rows,
        patients=found.patients,
        positives=found.positives,
        figures={name: shown(found.figures[name]) for name in NAMES},
        groups=tuple(
            GroupPerformance(
                grouping=table.properties[0],
                name=group.name,
                rows=group.rows,
                patients=group.patients,
                auroc=group.figures.why if isinstance(group.figures, TooSmall) else shown(group.figures["auroc"]),
                gap=shown(group.differences["auroc"].difference)
                if "auroc" in group.differences
                else "too small a group, or one class only",
            )
            for table in groups
            for group in table.groups
        ),
    )


def _share(holds: NDArray[np.bool_], patients: NDArray[np.int64]) -> Shown:
    """Give a share of rows, its interval by resampling patients; of none or all it is exact."""
    import numpy as np

    from deployr_core.bootstrap import Ratios, measure

    if not len(holds):
        return "nothing to take a share of"
    ratio = Ratios(
        names=("share",),
        lacks=("at least one row",),
        numerators=holds.astype(float)[:, None],
        denominators=np.ones((len(holds), 1)),
        shares=(True,),
    )
    return shown(measure([ratio], patients, rng=np.random.default_rng(0), resamples=500)["share"])


def _held_out(file: Path, manifest: Manifest) -> Performance | None:
    """Read the run's own report; None where there is none, or it is of a target other than one outcome."""
    from deployr_dev.evaluation.records import Evaluation

    if not file.is_file():
        return None
    try:
        report = msgspec.json.decode(file.read_bytes(), type=_Report)
        of_report = parse_manifest(bytes(report.manifest))
        found = msgspec.json.decode(report.evaluation, type=Evaluation)
    except (msgspec.DecodeError, UnicodeDecodeError, ValueError):
        return None
    if of_report != manifest:
        raise CommandFailed(f"{file}: expected the report of the run's own bundle, got another's")

    return Performance(
        rows=found.rows,
        patients=found.patients,
        positives=found.positives,
        figures={name: _recorded(getattr(found, name)) for name in NAMES},
        groups=tuple(group for grouping in found.groupings for group in _held_out_groups(grouping)),
    )


def _held_out_groups(grouping: Grouping) -> Iterator[GroupPerformance]:
    """Give a grouping's figures; a report for the team counts small groups, which a card for many does not."""
    from deployr_core.monitoring.subgroups import withheld
    from deployr_dev.evaluation.records import GroupFigures

    small = [not isinstance(group.figures, GroupFigures) for group in grouping.groups]
    hidden = withheld([group.rows for group in grouping.groups], small)
    for group, hide in zip(grouping.groups, hidden, strict=True):
        figures = group.figures
        yield GroupPerformance(
            grouping=grouping.name,
            name=group.name,
            rows=None if hide else group.rows,
            patients=None if hide else group.patients,
            auroc=_recorded(figures.auroc) if isinstance(figures, GroupFigures) else figures.why,
            gap="not measured on held-out rows",
        )


def _recorded(figure: Figure) -> Shown:
    from deployr_dev.evaluation.records import NotMeasured

    return (
        figure.why
        if isinstance(figure, NotMeasured)
        else Estimate(value=figure.value, low=figure.low, high=figure.high)
    )


def _read(file: Path) -> bytes:
    try:
        return file.read_bytes()
    except OSError as error:
        raise CommandFailed(f"{file}: expected a file that can be read ({error.strerror})") from None


class _Report(msgspec.Struct, frozen=True):
    manifest: msgspec.Raw
    evaluation: msgspec.Raw


class _ParityReport(msgspec.Struct, frozen=True):
    orders: int
    features_compared: int
    features_equal: int
