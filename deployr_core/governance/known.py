"""What is known of a model without asking anybody: from its run's record, bundle, report and packets in service."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable

from deployr_core.bundle import Estimate, Manifest
from deployr_core.coverage import Requirements
from deployr_core.features import AgeGroup, CategoryGroup, EthnicityGroup, FeatureSpec, RaceGroup, SexGroup
from deployr_core.governance.performance import (
    Performance,
    Service,
    fairness_lines,
    group_lines,
    in_words,
    validity_lines,
)
from deployr_core.governance.profile import Known, Said
from deployr_core.layout import layout_of
from deployr_core.outputs import Target
from deployr_core.registry.comparison import Shown
from deployr_core.registry.run import DataSet, Run

RUN, MANIFEST, FEATURES, REPORT, EXTRACT = "run.json", "manifest.json", "features.json", "report.json", "the extract"

_OUTPUT = {
    Target.BINARY: "A probability from 0 to 1 of one outcome",
    Target.MULTICLASS: "A probability from 0 to 1 of each class, which add up to 1",
    Target.MULTILABEL: "A probability from 0 to 1 of each label",
    Target.REGRESSION: "A number",
}
_DEMOGRAPHICS = {AgeGroup: "date of birth (age)", SexGroup: "sex", RaceGroup: "race", EthnicityGroup: "ethnicity"}
_SPLITS = {
    "time": "Training rows lie before a cutoff in time, held-out rows from it on; a patient may be on both sides",
    "patient": "Training and held-out rows share no patient, and come from the same time",
    "time+patient": "Training and held-out rows share no patient, and held-out rows are later",
}
_NEVER = ("language", "sexual orientation", "gender identity", "social determinants of health", "health status")
"""No declaration has a kind of feature for these; a code or a text may still carry them."""


def known_of(facts: Iterable[Said]) -> Known:
    """Give facts by name.

    Raises:
        ValueError: two that say the same thing in two ways.
    """
    known: dict[str, Said] = {}
    for each in facts:
        if each.fact in known:
            raise ValueError(f"expected {each.fact} once")
        known[each.fact] = each
    return known


def facts_of_run(
    run: Run,
    manifest: Manifest,
    spec: FeatureSpec,
    *,
    held_out: Performance | None = None,
) -> tuple[Said, ...]:
    """Give what a run's record and its bundle say.

    Args:
        run: the record.
        manifest: of the run's own bundle.
        spec: its declaration.
        held_out: what the run's report says of its held-out rows; None takes the few figures of the record.

    Raises:
        ValueError: the manifest or the declaration is not the run's.
    """
    if manifest.model_id != run.model_id or spec.digest() != manifest.spec_sha256:
        raise ValueError("expected the run's own bundle and its declaration")
    task, training, outputs = manifest.task, manifest.training, manifest.task.outputs
    output = [f"{_OUTPUT[outputs.target]}, shown as {manifest.score_name}"]
    if outputs.unit is not None:
        output.append(f"In {outputs.unit}")
    if len(outputs.names) > 1:
        output.append(f"Of {', '.join(outputs.names)}; the score is that of {outputs.headline}")
    software = (f"{name} {number}" for name, number in sorted(training.library_versions.items()))
    parameters = (f"{name}: {value}" for name, value in sorted(training.parameters.items()))
    headline = tuple(
        f"{name} {in_words(figure)}, on {run.sets.test.rows:,} held-out rows" for name, figure in run.test.items()
    )
    facts = [
        _said("model", RUN, run.model_id),
        _said("version", MANIFEST, manifest.version, f"Run {run.run_id}"),
        _said("trained", RUN, f"On {run.opened_at:%Y-%m-%d} (UTC), by {run.trained_by}"),
        _said("output", MANIFEST, *output),
        _said("output_kind", MANIFEST, "A prediction"),
        _said("outcome", MANIFEST, task.label),
        _said("index_time", MANIFEST, f"Predicted of: {task.unit}; at: {task.index_time}"),
        _said("estimator", MANIFEST, training.estimator),
        *_any_said("parameters", MANIFEST, *parameters),
        _said("features", FEATURES, *_features(manifest, spec)),
        _said("demographics_used", FEATURES, *_demographics(spec)),
        _said("absent_data", FEATURES, "A feature that nothing known of the patient sets is absent, which is 0.0"),
        _said("requirements", MANIFEST, *_requirements(manifest.requires)),
        _said("data_source", RUN, run.source),
        _said("training_set", RUN, _set(run.sets.train)),
        _said("test_set", RUN, _set(run.sets.test), "Held out: nothing was chosen on it"),
        _said("splits", f"{RUN}, {MANIFEST}", *_splits(run, manifest)),
        _said("dates", RUN, f"Training {_days(run.sets.train)}", f"Held out {_days(run.sets.test)}"),
        *_any_said("software", MANIFEST, *software),
        _said("digests", RUN, f"Bundle SHA-256 {run.bundle_sha256}", f"Code SHA-256 {run.code_version.sources_sha256}"),
    ]
    if held_out is not None:
        return (*facts, *_performance("held_out", REPORT, held_out))
    return (*facts, *_any_said("held_out_validity", RUN, *headline))


def facts_of_service(service: Service) -> tuple[Said, ...]:
    """Give what an extract says of the run's bundle in service here."""
    told = (
        f"{service.requests:,} requests in {service.days:,} days",
        f"Answered with a score: {_share(service.answered)}",
        f"95th percentile of the time to an answer, ms: {in_words(service.latency_ms, digits=0)}",
        f"Of {service.ripe:,} due outcomes decided: {_share(service.labelled)}; observed: {_share(service.observed)}",
    )
    said = (_said("local_service", EXTRACT, *told),)
    if isinstance(service.performance, str):
        return said
    return (*said, *_performance("local", f"{EXTRACT}, packets in silent mode", service.performance))


def _performance(prefix: str, source: str, performance: Performance) -> tuple[Said, ...]:
    facts = [_said(f"{prefix}_validity", source, *validity_lines(performance))]
    if performance.groups:
        facts += [
            _said(f"{prefix}_fairness", source, *fairness_lines(performance)),
            _said(f"{prefix}_groups", source, *group_lines(performance.groups)),
        ]
    return tuple(facts)


def _said(fact: str, source: str, *lines: str) -> Said:
    return Said(fact=fact, lines=lines, source=source)


def _any_said(fact: str, source: str, *lines: str) -> tuple[Said, ...]:
    return (_said(fact, source, *lines),) if lines else ()


def _features(manifest: Manifest, spec: FeatureSpec) -> tuple[str, ...]:
    by_group = Counter(layout_of(spec).groups_of)
    return (
        f"{manifest.n_features:,} in all",
        *(f"{group.name}: {by_group[group.name]:,}" for group in spec.groups),
    )


def _demographics(spec: FeatureSpec) -> tuple[str, ...]:
    used = {type(group) for group in spec.groups if isinstance(group, CategoryGroup)}
    return (
        *(f"{name}: {'used' if kind in used else 'not used'}" for kind, name in _DEMOGRAPHICS.items()),
        *(f"{name}: no feature of its own" for name in _NEVER),
    )


def _requirements(requires: Requirements) -> tuple[str, ...]:
    """Say when the model gives no score; the EMR's own age is asked of every answer."""
    told = [f"No score from an answer of the EMR that is older than {requires.answer_age_s} s"]
    if requires.groups:
        told.append(f"Without anything known in each of {', '.join(requires.groups)}")
    if requires.features_present:
        told.append(f"With fewer than {requires.features_present} features present")
    if requires.newest_fact_hours is not None:
        told.append(f"Where nothing became known in the last {requires.newest_fact_hours} hours")
    if requires.age_at_least is not None:
        told.append(f"Under the age of {requires.age_at_least}")
    if requires.age_below is not None:
        told.append(f"From the age of {requires.age_below} on")
    if requires.visit_classes:
        told.append(f"In visits other than {', '.join(requires.visit_classes)}")
    return tuple(told)


def _splits(run: Run, manifest: Manifest) -> tuple[str, ...]:
    validation = run.sets.validation
    if validation is None:
        tuned = "No settings were searched, and no probabilities corrected"
    else:
        folds = "" if validation.folds is None else f" in {validation.folds} folds by patient"
        tuned = f"Settings or probabilities were chosen on the training rows{folds}"
    told = [tuned, "Evaluated retrospectively, on held-out rows"]
    split = manifest.training.parameters.get("split")
    if isinstance(split, str) and split in _SPLITS:
        told.insert(0, _SPLITS[split])
    return tuple(told)


def _set(rows: DataSet) -> str:
    outcome = "" if rows.positives is None else f", {rows.positives:,} with the outcome"
    return f"{rows.rows:,} rows of {rows.patients:,} patients{outcome}"


def _days(rows: DataSet) -> str:
    return f"{rows.first.isoformat()} to {rows.last.isoformat()} (UTC days of the index times)"


def _share(figure: Shown) -> str:
    if isinstance(figure, Estimate):
        return f"{figure.value:.1%} ({figure.low:.1%} to {figure.high:.1%})"
    return f"not measurable: {figure}"
