"""What only people can say of a model: `card.yaml`, which the site fills in, read strictly; and its template."""

from __future__ import annotations

import unicodedata
from collections.abc import Mapping

import msgspec

from deployr_core.governance.profile import Said
from deployr_core.strict_yaml import parse_yaml

SCHEMA_VERSION = 1
CARD_FILE = "card.yaml"

QUESTIONS: Mapping[str, str] = {
    "title": "Title of the study or of the project: model, population and outcome",
    "summary": "What the model is for, in two or three sentences",
    "keywords": "Keywords, with commas between them",
    "developer": "Who developed it: name of the organisation and the unit",
    "contact": "How to reach the developer",
    "funding": "Who paid for its development, and what their role was",
    "conflicts": "Conflicts of interest of those who made it",
    "release_stage": "How far it is: research, silent trial, trial, clinical use",
    "released_on": "When this version was released, or is to be",
    "availability": "Where it may be used: sites, regions",
    "regulation": "Whether it is cleared or exempt as a device, and by whose judgement",
    "intended_use": "What it is to be used for, at which point of the care",
    "decision_role": "Whether it informs, augments or replaces a clinical decision",
    "users": "Who is to use it",
    "how_to_use": "What users do on a score or an advisory, step by step",
    "population": "For which patients it is meant",
    "out_of_scope": "Tasks, situations or populations for which it must not be used",
    "risks": "Known risks, inappropriate settings and uses, limitations",
    "biases": "Known biases and ethical considerations",
    "risk_level": "Clinical risk level, and by which scale",
    "inequalities": "Known health inequalities among groups of patients in this clinical question",
    "background": "Diagnostic or prognostic, why the model was made, which models there are already",
    "setting": "Hospitals, wards and years that the training data come from",
    "eligibility": "Which patients and orders were included in the training data, and which were excluded",
    "treatments": "Treatments that change the outcome, and how they were dealt with",
    "data_quality": "How the data were cleaned and checked, and whether alike for all groups",
    "outcome_choice": "Why this outcome was chosen, and whether it is assessed alike for all groups",
    "blinding": "Who assessed outcome and predictors, and what they could see of each other",
    "predictor_choice": "Why these features were chosen",
    "sample_size": "Why the number of patients is enough",
    "training_demographics": "Whom the training data represent: race, ethnicity, language, sexual orientation, gender"
    " identity, sex, age, social determinants of health, health status",
    "relevance": "Why the training data fit the place where the model is to be used",
    "fairness_approach": "What was done so that the output is fair",
    "bias_mitigation": "What was done to manage, reduce or eliminate bias",
    "stakeholders": "Whom of patients, clinicians and others the design was talked over with",
    "security": "Security and compliance of the environment it runs in",
    "third_parties": "What of it comes from third parties",
    "external_data": "Where it was assessed on data of another source than training: data, setting, environment",
    "external_party": "Who did that assessment",
    "external_demographics": "Whom those data represent, as of the training data",
    "external_process": "How that assessment was done",
    "external_validity": "Its figures of validity, with intervals",
    "external_fairness": "Its figures of fairness, with intervals",
    "outcome_evaluations": "Evaluations of whether its use improved outcomes: citations or links",
    "validity_monitoring": "How and how often validity is monitored in use, and by whom",
    "fairness_monitoring": "How and how often fairness is monitored in use, and by whom",
    "updates": "How and how often it is updated",
    "corrections": "How soon it is corrected when risks to validity or fairness are found",
    "performance_goal": "Which performance was aimed at, and why",
    "fairness_goal": "Which fairness was aimed at, and why",
    "safety_goal": "Which safety and reliability were aimed at, and why",
    "interpretation": "What the figures mean for its use, fairness included",
    "threshold_choice": "Why this threshold was chosen",
    "site_differences": "How setting and patients of use differ from those of training",
    "clusters": "Whether performance differs among hospitals or wards, and how that was looked at",
    "ethics": "Which ethics committee approved or waived it",
    "consent": "Whether patients consent, or are told of it",
    "protocol": "Where the protocol is, or that there is none",
    "registration": "Where the study is registered, or that it is not",
    "data_sharing": "Whether others can have the data",
    "code_sharing": "Whether others can have the code and the model, and under which terms",
    "involvement": "How patients and the public took part, or that they did not",
    "user_skill": "What users have to know, and whether they enter anything",
    "next_steps": "What is to be studied next",
    "abstract": "The structured abstract, or where it is",
    "publications": "Peer-reviewed publications about it",
    "clinical_trial": "A clinical trial of it",
    "reimbursement": "Whether its use is reimbursed",
    "socioeconomic": "Socioeconomic status of the patients of the training data",
    "bibliography": "References, as BibTeX",
}
"""By key of `card.yaml`: what it asks."""


class Statements(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """What people say, by the keys of `QUESTIONS`; what is empty was not said. ``said_by``: who fills it in.

    Raises:
        ValueError: something was said and nobody says it, or a character that cannot be printed.
    """

    schema_version: int
    said_by: str | None = None
    answers: Mapping[str, str | None] = {}

    def __post_init__(self) -> None:
        if self.schema_version != SCHEMA_VERSION:
            raise ValueError(f"expected schema_version {SCHEMA_VERSION}, got {self.schema_version}")
        unknown = sorted(set(self.answers) - set(QUESTIONS))
        if unknown:
            raise ValueError(f"expected answers to what the template asks, got {', '.join(unknown)}")
        texts = {"said_by": self.said_by, **self.answers}
        for key, text in texts.items():
            if any(
                unicodedata.category(sign) in {"Cc", "Cs", "Cn", "Co"} and sign not in "\n\t" for sign in text or ""
            ):
                raise ValueError(f"{key}: expected text without control characters")
        if self.facts_by("") and not (self.said_by or "").strip():
            raise ValueError("said_by: expected the name of who says all this")

    def facts_by(self, source: str) -> tuple[Said, ...]:
        """Give what was said, as facts of that source."""
        return tuple(
            Said(fact=key, lines=_lines(text), source=source)
            for key in QUESTIONS
            if (text := self.answers.get(key)) is not None and text.strip()
        )

    @property
    def facts(self) -> tuple[Said, ...]:
        """Give what was said, in the order of the template."""
        return self.facts_by(f"{CARD_FILE}, by {(self.said_by or '').strip()}")


NOTHING_SAID = Statements(schema_version=SCHEMA_VERSION)


def parse_statements(content: bytes) -> Statements:
    """Read a card.

    Raises:
        YamlInvalid: not of that shape, or a key that nobody asks for; the message names it.
    """
    return parse_yaml(content, Statements)


def template() -> str:
    """Give an empty `card.yaml`, each key under what it asks."""
    lines = [
        "# What only people know of a model. What stays empty is listed as missing in every paper; nothing is guessed.",
        "# Say nothing about a patient. A text over several lines begins with `|`.",
        f"schema_version: {SCHEMA_VERSION}",
        "said_by:",
        "answers:",
    ]
    for key, question in QUESTIONS.items():
        lines += [f"  # {question}", f"  {key}:"]
    return "\n".join(lines) + "\n"


def _lines(text: str) -> tuple[str, ...]:
    return tuple(line.strip() for line in text.splitlines() if line.strip())
