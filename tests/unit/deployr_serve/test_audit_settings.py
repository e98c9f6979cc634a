"""The settings of the audit and of retention."""

from __future__ import annotations

from pathlib import Path

import pytest

from deployr_serve.core.errors import SettingsInvalid
from deployr_serve.core.retention import Kept
from deployr_serve.settings import read_settings

LEAST = {"DEPLOYR_BUNDLES": "bundles", "DEPLOYR_EMR_FHIR_BASE": "https://emr.example/fhir"}
FOLDER = {"DEPLOYR_AUDIT": "folder:/data/audit"}


def refusal(**given):
    with pytest.raises(SettingsInvalid) as caught:
        read_settings({**LEAST, **given})
    return str(caught.value)


def test_nothing_is_audited_and_everything_is_kept_unless_it_is_said():
    audit = read_settings(LEAST).audit
    assert (audit.folder, audit.fhir_base, audit.retention_days) == (None, None, {})


def test_a_folder_a_server_and_days_by_kind_are_read():
    given = {
        **FOLDER,
        "DEPLOYR_AUDIT_FHIR_BASE": "https://arr.example/fhir/",
        "DEPLOYR_RETENTION_DAYS": "scored:2557, unscored:400,audit:2557",
    }
    audit = read_settings({**LEAST, **given}).audit
    assert (audit.folder, audit.fhir_base) == (Path("/data/audit"), "https://arr.example/fhir")
    assert audit.retention_days == {Kept.SCORED: 2557, Kept.UNSCORED: 400, Kept.AUDIT: 2557}


@pytest.mark.parametrize(
    ("given", "named"),
    [
        ({"DEPLOYR_AUDIT": "/data/audit"}, "DEPLOYR_AUDIT"),
        ({"DEPLOYR_AUDIT": "folder:"}, "DEPLOYR_AUDIT"),
        ({"DEPLOYR_AUDIT_FHIR_BASE": "https://arr.example"}, "DEPLOYR_AUDIT"),
        ({**FOLDER, "DEPLOYR_AUDIT_FHIR_BASE": "arr.example"}, "DEPLOYR_AUDIT_FHIR_BASE"),
        ({**FOLDER, "DEPLOYR_AUDIT_FHIR_TOKEN": "CANARY"}, "DEPLOYR_AUDIT_FHIR_TOKEN"),
        ({"DEPLOYR_RETENTION_DAYS": "scored"}, "DEPLOYR_RETENTION_DAYS"),
        ({"DEPLOYR_RETENTION_DAYS": "scored:0"}, "DEPLOYR_RETENTION_DAYS"),
        ({"DEPLOYR_RETENTION_DAYS": "scored:7,scored:8"}, "DEPLOYR_RETENTION_DAYS"),
        ({"DEPLOYR_RETENTION_DAYS": "labels:7"}, "DEPLOYR_RETENTION_DAYS"),
        ({"DEPLOYR_PROFILE": "prod"}, "DEPLOYR_AUDIT"),
        (
            {**FOLDER, "DEPLOYR_AUDIT_FHIR_BASE": "http://arr.example", "DEPLOYR_PROFILE": "prod"},
            "DEPLOYR_AUDIT_FHIR_BASE",
        ),
    ],
)
def test_what_cannot_work_or_is_too_weak_is_named(given, named):
    message = refusal(**given)
    assert f"{named}: " in message
    assert "CANARY" not in message


def test_no_token_is_in_the_settings_repr():
    given = {**FOLDER, "DEPLOYR_AUDIT_FHIR_BASE": "https://arr.example", "DEPLOYR_AUDIT_FHIR_TOKEN": "CANARY"}
    assert "CANARY" not in repr(read_settings({**LEAST, **given}))
