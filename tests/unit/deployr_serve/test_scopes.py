"""Scopes of both versions: what is granted, what a declaration needs, and what is missing."""

from __future__ import annotations

import pytest

from deployr_core.features import FeatureSpec, SexGroup
from deployr_core.label_rules import (
    DiagnosisInWindow,
    FhirPathRule,
    FhirPathSearch,
    LabComponent,
    Mortality,
    Readmission,
)
from deployr_serve.adapters.scopes import (
    covers,
    label_scopes,
    missing_scopes,
    needed_scopes,
    parse_scopes,
    requested_scope,
    require_scopes,
    scope_version,
)
from deployr_serve.core.errors import InsufficientScope

CATEGORIES = "http://terminology.hl7.org/CodeSystem/observation-category"


def only(text):
    [scope] = parse_scopes(text)
    return scope


@pytest.mark.parametrize(
    ("text", "interactions"),
    [
        ("system/Observation.read", "rs"),
        ("system/Observation.write", "cud"),
        ("system/Observation.*", "cruds"),
        ("system/Observation.rs", "rs"),
        ("system/Observation.cruds", "cruds"),
        ("system/Observation.s", "s"),
    ],
)
def test_both_versions_say_what_may_be_done(text, interactions):
    assert only(text).interactions == frozenset(interactions)


@pytest.mark.parametrize(
    "text",
    [
        "",
        "openid fhirUser launch/patient offline_access",
        "system/Observation.",
        "system/Observation.sr",  # out of order
        "system/Observation.read.extra",
        "system/observation.read",
        "system/Observation",
        "tenant/Observation.read",
        "system/Observation.rsx",
    ],
)
def test_what_is_no_scope_about_resources_grants_nothing(text):
    assert parse_scopes(text) == frozenset()


@pytest.mark.parametrize(
    ("granted", "needed", "is_covered"),
    [
        ("system/Observation.rs", "system/Observation.s", True),
        ("system/*.read", "system/Observation.s", True),
        ("system/*.*", "system/Observation.rs", True),
        ("system/Observation.r", "system/Observation.s", False),
        ("system/Observation.r system/Observation.s", "system/Observation.rs", True),
        ("system/Observation.write", "system/Observation.s", False),
        ("user/Observation.rs patient/Observation.rs", "system/Observation.s", False),
        ("system/ObservationDefinition.rs", "system/Observation.s", False),
        ("system/Observation.rs?category=laboratory", "system/Observation.s", False),
        ("system/Observation.rs?category=laboratory", "system/Observation.s?category=laboratory", True),
        ("system/Observation.rs?category=vital-signs", "system/Observation.s?category=laboratory", False),
        (f"system/Observation.rs?category={CATEGORIES}|laboratory", "system/Observation.s?category=laboratory", True),
        ("system/Observation.rs?category=a|x", "system/Observation.s?category=b|x", False),
        ("system/Observation.rs?category=vital-signs,laboratory", "system/Observation.s?category=laboratory", True),
        ("system/Observation.rs?category=laboratory&status=final", "system/Observation.s?category=laboratory", False),
        ("system/Observation.rs", "system/Observation.s?category=laboratory", True),
        ("", "system/Observation.s", False),
    ],
)
def test_a_scope_is_covered_only_by_what_is_as_wide(granted, needed, is_covered):
    assert covers(parse_scopes(granted), only(needed)) is is_covered


def test_what_is_missing_is_named_by_resource_type_and_refused():
    needed = parse_scopes("system/Patient.s system/Observation.s?category=laboratory system/Condition.s")
    granted = parse_scopes("system/Patient.rs system/Observation.rs?category=vital-signs")
    assert missing_scopes(granted, needed) == ("Condition", "Observation (laboratory)")
    with pytest.raises(InsufficientScope, match=r"Condition, Observation \(laboratory\)"):
        require_scopes(granted, needed)


def test_where_nobody_says_what_is_granted_nothing_is_missing():
    needed = parse_scopes("system/Patient.s")
    assert missing_scopes(None, needed) == ()
    require_scopes(None, needed)
    assert missing_scopes(frozenset(), needed) == ("Patient",)


def test_whole_resource_types_are_asked_for_once_in_the_servers_own_version():
    needed = parse_scopes(
        "system/Patient.s system/Observation.s?category=laboratory system/Observation.s?category=vital-signs"
    )
    assert requested_scope(needed, version=2) == "system/Observation.rs system/Patient.rs"
    assert requested_scope(needed, version=1) == "system/Observation.read system/Patient.read"


def test_a_type_that_is_written_is_asked_for_to_be_created_as_well():
    needed = parse_scopes("system/Observation.s system/Observation.cs system/Patient.s system/Flag.cs")
    assert requested_scope(needed, version=2) == "system/Flag.crs system/Observation.crs system/Patient.rs"
    assert requested_scope(needed, version=1) == "system/Flag.* system/Observation.* system/Patient.read"


@pytest.mark.parametrize(
    ("capabilities", "supported", "version"),
    [
        (("permission-v1", "permission-v2"), (), 2),
        (("permission-v2",), ("system/*.read",), 2),
        (("permission-v1",), ("system/*.rs",), 1),
        ((), ("openid", "system/*.read"), 1),
        ((), ("system/*.read", "system/*.rs"), 2),
        ((), ("openid",), 2),
        ((), (), 2),
    ],
)
def test_the_version_is_what_discovery_says_and_two_where_it_does_not(capabilities, supported, version):
    assert scope_version(capabilities=capabilities, supported=supported) == version


def test_what_is_needed_follows_from_the_declaration(feature_spec):
    # Results, problem-list diagnoses and medications, which may be ordered by reference.
    assert missing_scopes(frozenset(), needed_scopes(feature_spec)) == (
        "Condition (problem-list-item)",
        "Encounter",
        "Medication",
        "MedicationRequest",
        "Observation (laboratory)",
        "Patient",
        "ServiceRequest",
    )


def test_narrow_scopes_are_enough_for_a_declaration_that_asks_no_more(feature_spec):
    rest = requested_scope(parse_scopes("system/Patient.s system/Encounter.s system/ServiceRequest.s"), version=2)
    rest += " system/Medication.rs system/MedicationRequest.rs"
    narrow = " system/Observation.rs?category=laboratory system/Condition.rs?category=problem-list-item"
    require_scopes(parse_scopes(rest + narrow), needed_scopes(feature_spec))


def test_what_is_asked_for_covers_what_is_needed(feature_spec):
    needed = needed_scopes(feature_spec)
    for version in (1, 2):
        require_scopes(parse_scopes(requested_scope(needed, version=version)), needed)


def test_a_declaration_without_facts_needs_only_whom_it_is_about():
    spec = FeatureSpec(schema_version=1, groups=(SexGroup(),))
    assert missing_scopes(frozenset(), needed_scopes(spec)) == ("Encounter", "Patient", "ServiceRequest")


def test_what_is_read_by_another_interface_needs_no_scope(feature_spec):
    names = missing_scopes(frozenset(), needed_scopes(feature_spec, elsewhere=frozenset({"labs", "medications"})))
    assert names == ("Condition (problem-list-item)", "Encounter", "Patient", "ServiceRequest")


# -- what labels need


@pytest.mark.parametrize(
    ("rule", "needed"),
    [
        (LabComponent(components=("4544-3",), window_hours=24), "Observation Patient ServiceRequest"),
        (Readmission(days=30), "Encounter Patient"),
        (Mortality(days=30), "Encounter Patient"),
        (DiagnosisInWindow(codes={"urn:x": ("1",)}, days=30), "Condition Encounter Patient"),
        (
            FhirPathRule(
                expression="Bundle.entry.resource.where(issued >= %as_of and issued < %until).exists()",
                searches=(FhirPathSearch(resource_type="DiagnosticReport"),),
                hours=24,
            ),
            "DiagnosticReport Patient",
        ),
    ],
    ids=lambda each: each if isinstance(each, str) else type(each).__name__,
)
def test_what_must_be_granted_follows_from_the_label_rule(rule, needed):
    assert " ".join(sorted(scope.resource_type for scope in label_scopes([rule]))) == needed


def test_results_for_labels_are_laboratory_results_and_several_rules_need_all_of_theirs():
    both = label_scopes([LabComponent(components=("4544-3",), window_hours=24), Mortality(days=30)])
    assert missing_scopes(frozenset(), both) == ("Encounter", "Observation (laboratory)", "Patient", "ServiceRequest")
    assert label_scopes([]) <= both
