"""What the mock grants of what is asked for, and what a grant permits."""

from __future__ import annotations

import pytest

from mock_emr.scopes import NO_RULES, ScopeRulesError, granted, permits, rules_in


@pytest.mark.parametrize(
    ("requested", "allowed", "expected"),
    [
        ("system/Patient.rs", None, "system/Patient.rs"),
        ("system/Patient.rs system/Observation.rs", "system/Patient.rs", "system/Patient.rs"),
        ("system/Patient.rs", "system/Patient.read", "system/Patient.rs"),
        ("system/Patient.read", "system/Patient.rs", "system/Patient.read"),
        ("system/Patient.rs", "system/Patient.s", "system/Patient.s"),
        ("system/*.rs", "system/Patient.rs system/Observation.s", "system/Patient.rs system/Observation.s"),
        ("system/Patient.read", "system/*.cruds", "system/Patient.read"),
        (
            "system/Observation.rs",
            "system/Observation.rs?category=laboratory",
            "system/Observation.rs?category=laboratory",
        ),
        ("system/Patient.cud", "system/Patient.rs", ""),
        ("system/Condition.rs", "system/Patient.rs", ""),
    ],
)
def test_what_is_granted_is_what_request_and_registration_share(requested, allowed, expected):
    assert granted(requested, allowed=allowed) == expected


@pytest.mark.parametrize(
    ("scope", "interaction", "parameters", "is_permitted"),
    [
        ("system/Observation.rs", "s", (), True),
        ("system/*.read", "s", (), True),
        ("system/Observation.r", "s", (), False),
        ("system/Observation.s", "r", (), False),
        ("system/Patient.rs", "s", (), False),
        ("", "s", (), False),
        ("system/Observation.rs?category=laboratory", "s", (("category", "laboratory"),), True),
        ("system/Observation.rs?category=x|laboratory", "s", (("category", "laboratory"),), True),
        ("system/Observation.rs?category=laboratory", "s", (("category", "laboratory,vital-signs"),), False),
        ("system/Observation.rs?category=laboratory", "s", (), False),
    ],
)
def test_a_search_is_permitted_by_a_scope_that_is_as_wide(scope, interaction, parameters, is_permitted):
    assert permits(scope, "Observation", interaction, parameters) is is_permitted


@pytest.mark.parametrize(
    "body", [b"", b"[]", b'{"enforce":true}', b'{"allowed":{"a":"openid"}}', b'{"allowed":{"a":""}}']
)
def test_what_are_no_rules_is_refused(body):
    with pytest.raises(ScopeRulesError):
        rules_in(body)


def test_the_rules_are_off_until_they_are_put():
    assert (NO_RULES.enforced, rules_in(b"{}")) == (False, NO_RULES)
