"""A new version takes over while requests run: at one instant, and only if it is fit to."""

from __future__ import annotations

import asyncio
import json

import msgspec
import pytest

from deployr_core import bundle as bundles
from deployr_core.features import SexGroup
from deployr_core.model_format import MODEL_FILE
from deployr_core.packet import Scored
from deployr_serve.adapters.models import LOOKS_AGAIN_S, BundleFolder
from deployr_serve.core.infer import infer


@pytest.fixture
def folder(tmp_path, bundle_files):
    """Give a folder with version 1.0.0 of the one model."""
    (tmp_path / "hematocrit").mkdir()
    for name, content in bundle_files.items():
        (tmp_path / "hematocrit" / name).write_bytes(content)
    return tmp_path


@pytest.fixture
def put(folder, bundle_files):
    """Give a function that puts a new version in the place of the old one, and gives its digest."""

    def make(files=None, **changes):
        manifest = bundles.parse_manifest(bundle_files[bundles.MANIFEST_FILE])
        manifest = msgspec.structs.replace(manifest, version="1.1.0", **changes)
        (folder / "hematocrit" / bundles.MANIFEST_FILE).write_bytes(manifest.to_json())
        for name, content in (files or {}).items():
            (folder / "hematocrit" / name).write_bytes(content)
        return bundles.sha256_hex(manifest.to_json())

    return make


@pytest.fixture
def models(folder, clock):
    return BundleFolder(folder, clock=clock, beside=lambda work: work())


def version(models, clock, *, after_s=LOOKS_AGAIN_S):
    """Give the version that answers after so long; the look that finds a new one does not wait for it."""
    clock.pass_time(after_s)
    models.bundle("hematocrit")
    return models.bundle("hematocrit").manifest.version


def test_a_new_version_is_taken_when_the_folder_is_looked_at_again(models, clock, put):
    put()
    assert version(models, clock, after_s=LOOKS_AGAIN_S - 0.1) == "1.0.0"
    assert version(models, clock, after_s=0.1) == "1.1.0"
    assert models.deployed() == {"hematocrit": None}


def test_a_version_that_is_still_being_copied_is_taken_once_it_is_whole(models, clock, put, bundle_files, folder):
    golden = json.loads(bundle_files[bundles.GOLDEN_FILE])[:1]
    content = json.dumps(golden).encode()
    manifest = bundles.parse_manifest(bundle_files[bundles.MANIFEST_FILE])
    put(parts={**manifest.parts, bundles.GOLDEN_FILE: bundles.describe_part(content)})
    assert version(models, clock) == "1.0.0"
    (folder / "hematocrit" / bundles.GOLDEN_FILE).write_bytes(content)
    assert version(models, clock) == "1.1.0"


def test_a_folder_that_is_being_replaced_leaves_the_old_version_at_work(models, clock, put, folder):
    (folder / "hematocrit").rename(folder / "aside")
    assert version(models, clock) == "1.0.0"
    (folder / "aside").rename(folder / "hematocrit")
    put()
    assert version(models, clock) == "1.1.0"


def test_a_version_that_does_not_work_is_not_taken_and_said(models, clock, put, caplog):
    content = b"no trees"
    manifest = models.bundle("hematocrit").manifest
    put({MODEL_FILE: content}, parts={**manifest.parts, MODEL_FILE: bundles.describe_part(content)})
    assert version(models, clock) == "1.0.0"
    assert "model hematocrit: a new version was not taken, the old one goes on" in caplog.text
    caplog.clear()
    assert version(models, clock) == "1.0.0"
    assert caplog.text == ""  # It is not tried every few seconds.


def test_a_version_that_fails_its_trial_is_not_loaded(folder, clock, put):
    refused = {}
    models = BundleFolder(folder, clock=clock, beside=lambda work: work(), refused=lambda _: refused)
    refused[put()] = "it crashes Python"
    assert version(models, clock) == "1.0.0"


def test_a_version_with_another_score_name_waits_for_a_start(models, clock, put, caplog):
    put(score_name="OTHER")
    assert version(models, clock) == "1.0.0"
    assert "expected the same outputs and score name; start the app again" in caplog.text


def test_a_version_that_asks_the_emr_for_more_waits_for_a_start(folder, clock, put, caplog):
    asked = [("a search",)]
    models = BundleFolder(folder, clock=clock, beside=lambda work: work(), needs=lambda _: asked.pop())
    asked[:] = [("another search",), ("a search",)]
    put()
    assert version(models, clock) == "1.0.0"
    assert "expected to ask the EMR for the same; start the app again" in caplog.text


def test_another_declaration_is_another_need_if_nobody_says_otherwise(models, clock, put, bundle_files, caplog):
    spec = models.bundle("hematocrit").spec
    other = msgspec.structs.replace(
        spec, groups=tuple(msgspec.structs.replace(g, name="s") if isinstance(g, SexGroup) else g for g in spec.groups)
    )
    content = other.to_json()
    parts = models.bundle("hematocrit").manifest.parts
    put(
        {bundles.FEATURES_FILE: content},
        spec_sha256=other.digest(),
        parts={**parts, bundles.FEATURES_FILE: bundles.describe_part(content)},
    )
    assert version(models, clock) == "1.0.0"
    assert "expected to ask the EMR for the same" in caplog.text


def test_a_model_that_appears_waits_for_a_start(models, clock, folder, bundle_files):
    # Its deployment file, its scopes and its hook were not read: it would go live without any of them.
    (folder / "anemia").mkdir()
    manifest = bundles.parse_manifest(bundle_files[bundles.MANIFEST_FILE])
    for name, content in bundle_files.items():
        (folder / "anemia" / name).write_bytes(content)
    (folder / "anemia" / bundles.MANIFEST_FILE).write_bytes(
        msgspec.structs.replace(manifest, model_id="anemia").to_json()
    )
    assert version(models, clock) == "1.0.0"
    assert models.deployed() == {"hematocrit": None}


def test_only_one_look_is_under_way_at_a_time(folder, clock, put):
    waiting = []
    models = BundleFolder(folder, clock=clock, beside=waiting.append)
    put()
    for _ in range(3):
        clock.pass_time(LOOKS_AGAIN_S)
        assert models.bundle("hematocrit").manifest.version == "1.0.0"
    [look] = waiting
    look()
    assert models.bundle("hematocrit").manifest.version == "1.1.0"


async def test_requests_in_flight_end_on_the_version_they_began_with(
    models, clock, put, services_of, request_of, fetched_of, lab_of
):
    released = asyncio.Event()

    async def fetched():
        await released.wait()
        return fetched_of(lab_of())

    class Source:
        async def fetch(self, *_, **__):
            return await fetched()

    services = services_of(models=models, source=Source())
    old = models.bundle("hematocrit").digest

    def ask(number):
        return asyncio.ensure_future(infer(request_of(order_id=f"o{number}"), services))

    first = [ask(number) for number in range(50)]
    for _ in range(10):
        await asyncio.sleep(0)
    new = put()
    clock.pass_time(LOOKS_AGAIN_S)
    second = [ask(number) for number in range(50, 100)]
    for _ in range(10):
        await asyncio.sleep(0)
    released.set()
    packets = [answer.packet for answer in await asyncio.gather(*first, *second)]
    assert all(isinstance(packet.outcome, Scored) for packet in packets)
    digests = [packet.model.bundle_sha256 for packet in packets]
    # The request whose look finds it is itself still answered by the old one, or already by the new one.
    assert set(digests[:50]) == {old}
    assert set(digests[51:]) == {new}
    assert {packet.model.version for packet in packets[51:]} == {"1.1.0"}
