"""The 31 source attributes that ONC's HTI-1 rule asks of a predictive decision support intervention."""

from __future__ import annotations

from deployr_core.governance.profile import Item, Profile

_VARIABLES = "variables in paragraph (b)(11)(iv)(A)(5)-(13) of this section"
_OWN_SOURCE = "in test data derived from the same source as the initial training data"
_OTHER_SOURCE = "in data external to or from a different source than the initial training data"

_SECTIONS = {
    "1": "Details and output of the intervention",
    "2": "Purpose of the intervention",
    "3": "Cautioned out-of-scope use of the intervention",
    "4": "Intervention development details and input features",
    "5": "Process used to ensure fairness in development of the intervention",
    "6": "External validation process",
    "7": "Quantitative measures of performance",
    "8": "Ongoing maintenance of intervention implementation and use",
    "9": "Update and continued validation or fairness assessment schedule",
}

_ROWS: tuple[tuple[str, str, tuple[str, ...]], ...] = (
    ("1i", "Name and contact information for the intervention developer", ("developer", "contact")),
    ("1ii", "Funding source of the technical implementation for the intervention(s) development", ("funding",)),
    ("1iii", "Description of value that the intervention produces as an output", ("output", "outcome")),
    (
        "1iv",
        "Whether the intervention output is a prediction, classification, recommendation, evaluation, analysis, or"
        " other type of output",
        ("output_kind",),
    ),
    ("2i", "Intended use of the intervention", ("intended_use",)),
    ("2ii", "Intended patient population(s) for the intervention's use", ("population",)),
    ("2iii", "Intended user(s)", ("users",)),
    (
        "2iv",
        "Intended decision-making role for which the intervention was designed to be used/for (e.g., informs,"
        " augments, replaces clinical management)",
        ("decision_role",),
    ),
    (
        "3i",
        "Description of tasks, situations, or populations where a user is cautioned against applying the intervention",
        ("out_of_scope",),
    ),
    ("3ii", "Known risks, inappropriate settings, inappropriate uses, or known limitations", ("risks",)),
    ("4i", "Exclusion and inclusion criteria that influenced the training data set", ("eligibility",)),
    ("4ii", f"Use of {_VARIABLES} as input features", ("demographics_used",)),
    (
        "4iii",
        f"Description of demographic representativeness according to {_VARIABLES} including, at a minimum, those used"
        " as input features in the intervention",
        ("training_demographics", "held_out_groups"),
    ),
    ("4iv", "Description of relevance of training data to intended deployed setting", ("relevance",)),
    (
        "5i",
        "Description of the approach the intervention developer has taken to ensure that the intervention's output is"
        " fair",
        ("fairness_approach",),
    ),
    ("5ii", "Description of approaches to manage, reduce, or eliminate bias", ("bias_mitigation",)),
    (
        "6i",
        "Description of the data source, clinical setting, or environment where an intervention's validity and"
        " fairness has been assessed, other than the source of training and testing data",
        ("external_data",),
    ),
    ("6ii", "Party that conducted the external testing", ("external_party",)),
    (
        "6iii",
        f"Description of demographic representativeness of external data according to {_VARIABLES} including, at a"
        " minimum, those used as input features in the intervention",
        ("external_demographics",),
    ),
    ("6iv", "Description of external validation process", ("external_process",)),
    ("7i", f"Validity of intervention {_OWN_SOURCE}", ("held_out_validity",)),
    ("7ii", f"Fairness of intervention {_OWN_SOURCE}", ("held_out_fairness",)),
    ("7iii", f"Validity of intervention {_OTHER_SOURCE}", ("external_validity",)),
    ("7iv", f"Fairness of intervention {_OTHER_SOURCE}", ("external_fairness",)),
    (
        "7v",
        "References to evaluation of use of the intervention on outcomes, including, bibliographic citations or"
        " hyperlinks to evaluations of how well the intervention reduced morbidity, mortality, length of stay, or other"
        " outcomes",
        ("outcome_evaluations",),
    ),
    (
        "8i",
        "Description of process and frequency by which the intervention's validity is monitored over time",
        ("validity_monitoring",),
    ),
    ("8ii", "Validity of intervention in local data", ("local_validity",)),
    (
        "8iii",
        "Description of the process and frequency by which the intervention's fairness is monitored over time",
        ("fairness_monitoring",),
    ),
    ("8iv", "Fairness of intervention in local data", ("local_fairness",)),
    ("9i", "Description of process and frequency by which the intervention is updated", ("updates",)),
    (
        "9ii",
        "Description of frequency by which the intervention's performance is corrected when risks related to validity"
        " and fairness are identified",
        ("corrections",),
    ),
)

HTI1 = Profile(
    name="hti1",
    title="Source attributes of a predictive decision support intervention (ONC HTI-1)",
    source="45 CFR 170.315(b)(11)(iv)(B); 89 FR 1192 (9 January 2024)",
    wording="In the rule's words, its paragraph numbers kept. The rule itself could not be had whole when this was"
    " written: the words were held against two reproductions of it by others, item by item; docs/governance.md names"
    " the items on which those differ. Compare with the rule before you publish this under its name.",
    items=tuple(
        Item(number=f"(B)({place[0]})({place[1:]})", section=_SECTIONS[place[0]], asked=asked, facts=facts)
        for place, asked, facts in _ROWS
    ),
)
