"""Shadows come from the shelf, verified like any bundle; what is wrong with one disables it alone."""

from __future__ import annotations

import dataclasses

import pytest

from deployr_core.bundle import MANIFEST_FILE
from deployr_core.model_format import MODEL_FILE
from deployr_core.packet import Mode
from deployr_serve.adapters import shadow_bundles
from deployr_serve.adapters.shadow_bundles import ShadowBundles
from deployr_serve.core.errors import ModelUnavailable, SettingsInvalid, UnknownModel
from deployr_serve.core.policy import Policy
from deployr_serve.shadow_bootstrap import shadowed

GOOD, BAD = "hematocrit-aaaaaaaaaaaa", "hematocrit-bbbbbbbbbbbb"


@pytest.fixture
def shelf(tmp_path, bundle_files):
    """Give a shelf with two runs, of which the second lost a byte of its model."""
    for run in (GOOD, BAD):
        folder = tmp_path / "hematocrit" / run / "bundle"
        folder.mkdir(parents=True)
        for name, content in bundle_files.items():
            (folder / name).write_bytes(content[:-1] if (run, name) == (BAD, MODEL_FILE) else content)
    return tmp_path


def test_a_shadow_is_loaded_and_a_damaged_one_is_unavailable_alone(shelf, caplog):
    models = ShadowBundles(shelf, {"hematocrit": (GOOD, BAD)})

    assert models.bundle(GOOD).manifest.model_id == "hematocrit"
    assert set(models.deployed()) == {GOOD, BAD}
    assert models.deployed()[GOOD] is None
    with pytest.raises(ModelUnavailable):
        models.bundle(BAD)
    assert f"shadow {BAD} is not available" in caplog.text
    with pytest.raises(UnknownModel):
        models.bundle("hematocrit")


def test_a_bundle_of_another_model_is_no_shadow_of_this_one(shelf):
    (shelf / "hematocrit").rename(shelf / "hemoglobin")

    models = ShadowBundles(shelf, {"hemoglobin": (GOOD,)})

    assert models.deployed() == {GOOD: f"{MANIFEST_FILE}: expected a bundle of hemoglobin"}


def test_what_fails_its_trial_or_needs_what_cannot_be_fetched_is_not_used(shelf):
    wanted = {"hematocrit": (GOOD,)}

    refused = ShadowBundles(shelf, wanted, refused=lambda bundles: dict.fromkeys(bundles, "it crashes Python"))
    missing = ShadowBundles(shelf, wanted, unfetchable=lambda _: ("orders",))

    assert refused.deployed() == {GOOD: "it crashes Python"}
    assert "expected features that can be fetched here, got orders" in missing.deployed()[GOOD]


def test_what_crashed_in_its_trial_is_not_loaded_here(shelf, monkeypatch):
    monkeypatch.setattr(shadow_bundles, "read_bundle", lambda *_, **__: pytest.fail("loaded"))

    refused = ShadowBundles(
        shelf, {"hematocrit": (GOOD,)}, refused=lambda bundles: dict.fromkeys(bundles, "it crashes")
    )

    assert refused.deployed() == {GOOD: "it crashes"}


def services_with(services_of, *shadows):
    return services_of(policies=(Policy(schema_version=1, model="hematocrit", mode=Mode.LIVE, shadows=shadows),))


def followed_by(services, runs):
    return shadowed(
        services,
        runs=runs,
        trusted_keys=(),
        allow_pickle=False,
        unfetchable=lambda _: (),
        refused=lambda _: {},
        needs=lambda _: (),
    )


def test_a_deployment_file_that_names_no_run_on_the_shelf_is_refused_at_the_start(services_of, shelf):
    with pytest.raises(SettingsInvalid, match=r"shadows: expected a run in .*, got hematocrit-cccccccccccc"):
        followed_by(services_with(services_of, GOOD, "hematocrit-cccccccccccc"), shelf)
    with pytest.raises(SettingsInvalid, match="expected DEPLOYR_BUNDLE_ARCHIVE"):
        followed_by(services_with(services_of, GOOD), None)


def test_where_nobody_names_any_nothing_is_put_together(services_of):
    services = services_with(services_of)

    assert followed_by(services, None) is services


def test_shadows_are_labelled_and_not_served(services_of, shelf):
    services = followed_by(services_with(services_of, GOOD), shelf)

    assert set(services.labelled.deployed()) == {"hematocrit", GOOD}
    assert services.labelled.bundle(GOOD).manifest.model_id == "hematocrit"
    assert set(services.models.deployed()) == {"hematocrit"}
    assert dataclasses.replace(services, shadows=None).labelled is services.models
