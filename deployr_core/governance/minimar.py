"""MINIMAR: the minimum information for medical AI reporting."""

from __future__ import annotations

from deployr_core.governance.profile import Item, Profile

_POPULATION, _PATIENTS = "Study population and setting", "Patient demographic characteristics"
_MODEL, _EVALUATION = "Model architecture", "Model evaluation"

_ROWS: tuple[tuple[str, str, tuple[str, ...]], ...] = (
    (_POPULATION, "Population: from which the study sample was drawn", ("population",)),
    (_POPULATION, "Study setting: where it was conducted", ("setting",)),
    (_POPULATION, "Data source: from which data were collected", ("data_source",)),
    (_POPULATION, "Cohort selection: inclusion and exclusion criteria", ("eligibility",)),
    (_PATIENTS, "Age", ("training_demographics", "held_out_groups")),
    (_PATIENTS, "Sex", ("training_demographics", "held_out_groups")),
    (_PATIENTS, "Race", ("training_demographics", "held_out_groups")),
    (_PATIENTS, "Ethnicity", ("training_demographics", "held_out_groups")),
    (_PATIENTS, "Socioeconomic status", ("socioeconomic",)),
    (_MODEL, "Model output: what the model computes", ("output",)),
    (_MODEL, "Target user", ("users",)),
    (_MODEL, "Data splitting: how data were split for training, testing and validation", ("splits",)),
    (_MODEL, "Gold standard: labelled data used to train and test", ("outcome",)),
    (_MODEL, "Model task: classification or prediction", ("output_kind",)),
    (_MODEL, "Model architecture: the type of algorithm", ("estimator",)),
    (_MODEL, "Features: the variables used, and how they were used or transformed", ("features",)),
    (_MODEL, "Missingness: how missing data were handled", ("absent_data",)),
    (_EVALUATION, "Optimization: how settings were chosen", ("splits", "parameters")),
    (_EVALUATION, "Internal model validation", ("held_out_validity",)),
    (_EVALUATION, "External model validation", ("external_data", "external_validity")),
    (_EVALUATION, "Transparency: how code and data are shared", ("code_sharing", "data_sharing")),
)

MINIMAR = Profile(
    name="minimar",
    title="Minimum information for medical AI reporting (MINIMAR)",
    source="Hernandez-Boussard et al. (2020), J Am Med Inform Assoc 27:2011-2015, doi:10.1093/jamia/ocaa088",
    wording="The published table's four parts and names of items; what each asks is in our words.",
    items=tuple(
        Item(number=str(number), section=section, asked=asked, facts=facts)
        for number, (section, asked, facts) in enumerate(_ROWS, start=1)
    ),
)
