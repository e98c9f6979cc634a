"""CHAI's applied model card: the elements of its schema, in their order, and what answers each."""

from __future__ import annotations

from dataclasses import dataclass

from deployr_core.governance.profile import Item, Profile

NAMESPACE = "https://mc.chai.org/v0.2/schema.xsd"


@dataclass(frozen=True, kw_only=True, slots=True)
class Element:
    """One text of the card: its path under the root, and whether the schema wants it."""

    path: tuple[str, ...]
    facts: tuple[str, ...]
    is_needed: bool = True


def _of(path: str, *facts: str, needed: bool = True) -> Element:
    return Element(path=tuple(path.split("/")), facts=facts, is_needed=needed)


_FACTS, _OPEN = "TrustIngredients/AISystemFacts", "TrustIngredients/TransparencyInformation"
_USEFUL, _FAIR, _SAFE = (
    f"KeyMetrics/{name}" for name in ("UsefulnessUsabilityEfficacy", "FairnessEquity", "SafetyReliability")
)
RESULTS = "Results"
"""Under each of the three metrics: figures, which are not one text."""


def _metric(path: str, goal: str, *results: str) -> tuple[Element, ...]:
    return (
        _of(f"{path}/MetricGoal", goal),
        _of(f"{path}/{RESULTS}", *results),
        _of(f"{path}/Interpretation", "interpretation"),
        _of(f"{path}/TestType", "splits"),
        _of(f"{path}/TestingDataDescription", "test_set"),
        _of(f"{path}/ValidationProcessAndJustification", "splits", "sample_size"),
    )


ELEMENTS: tuple[Element, ...] = (
    _of("BasicInfo/ModelName", "model"),
    _of("BasicInfo/ModelDeveloper", "developer"),
    _of("BasicInfo/DeveloperContact", "contact"),
    _of("ReleaseInfo/ReleaseStage", "release_stage"),
    _of("ReleaseInfo/ReleaseDate", "released_on"),
    _of("ReleaseInfo/ReleaseVersion", "version"),
    _of("ReleaseInfo/GlobalAvailability", "availability"),
    _of("ReleaseInfo/RegulatoryApproval", "regulation", needed=False),
    _of("ModelSummary/Summary", "summary"),
    _of("ModelSummary/Keywords", "keywords"),
    _of("UsesAndDirections/IntendedUseAndWorkflow", "intended_use", "decision_role"),
    _of("UsesAndDirections/PrimaryIntendedUsers", "users"),
    _of("UsesAndDirections/HowToUse", "how_to_use"),
    _of("UsesAndDirections/TargetedPatientPopulation", "population"),
    _of("UsesAndDirections/CautionedOutOfScopeSettings", "out_of_scope"),
    _of("Warnings/KnownRisksAndLimitations", "risks"),
    _of("Warnings/KnownBiasesOrEthicalConsiderations", "biases"),
    _of("Warnings/ClinicalRiskLevel", "risk_level"),
    _of(f"{_FACTS}/OutcomesAndOutputs", "output", "outcome"),
    _of(f"{_FACTS}/ModelType", "estimator"),
    _of(f"{_FACTS}/InputDataSource", "data_source", "setting"),
    _of(f"{_FACTS}/OutputAndInputDataTypes", "features", "output_kind"),
    _of(f"{_FACTS}/DevelopmentDataCharacterization", "training_set", "dates", "training_demographics"),
    _of(f"{_FACTS}/BiasMitigationApproaches", "bias_mitigation"),
    _of(f"{_FACTS}/OngoingMaintenance", "validity_monitoring", "fairness_monitoring", "updates"),
    _of(f"{_FACTS}/Security", "security", needed=False),
    _of(f"{_FACTS}/Transparency", "digests", needed=False),
    _of(f"{_OPEN}/FundingSource", "funding"),
    _of(f"{_OPEN}/ThirdPartyInformation", "third_parties", needed=False),
    _of(f"{_OPEN}/StakeholdersConsulted", "stakeholders"),
    *_metric(_USEFUL, "performance_goal", "held_out_validity", "local_validity"),
    *_metric(_FAIR, "fairness_goal", "held_out_fairness", "local_fairness"),
    *_metric(_SAFE, "safety_goal", "local_service"),
    _of("Resources/EvaluationReferences", "outcome_evaluations", needed=False),
    _of("Resources/ClinicalTrial", "clinical_trial", needed=False),
    _of("Resources/PeerReviewedPublications", "publications"),
    _of("Resources/ReimbursementStatus", "reimbursement", needed=False),
    _of("Resources/PatientConsentOrDisclosure", "consent"),
    _of("Bibliography", "bibliography"),
)
"""Without the two elements that no fact of ours answers: foundation models, and compatibility with EHRs, whose name
two published states of the schema's version 0.2 spell differently. The schema wants neither."""

CHAI = Profile(
    name="chai",
    title="CHAI applied model card",
    source="Coalition for Health AI, applied model card, schema v0.2 (a draft): https://mc.chai.org/v0.2/schema.xsd",
    wording="The names of the schema's elements, in their order.",
    items=tuple(
        Item(
            number="/".join(each.path),
            section=each.path[0],
            asked=each.path[-1] + ("" if each.is_needed else " (optional)"),
            facts=each.facts,
        )
        for each in ELEMENTS
    ),
)
