from __future__ import annotations

import hashlib
import json
import math
from typing import TYPE_CHECKING, Any

import msgspec
import pytest
import treelite

from deployr_core.bundle import (
    FEATURES_FILE,
    GOLDEN_FILE,
    MODEL_FILE,
    PARTS,
    Bundle,
    BundleInvalid,
    check_part,
    describe_part,
    open_bundle,
    parse_manifest,
)

if TYPE_CHECKING:
    from tests.unit.deployr_core.conftest import Make, Shipment


class ModelWasRead(Exception):
    pass


@pytest.fixture
def tripwire(monkeypatch: pytest.MonkeyPatch) -> None:
    """Whoever deserialises a model trips over it."""

    def trip(*_: object, **__: object) -> None:
        raise ModelWasRead

    monkeypatch.setattr(treelite.Model, "deserialize_bytes", trip)
    monkeypatch.setattr(treelite.Model, "deserialize", trip)


def opened(shipment: Shipment) -> Bundle:
    return open_bundle(shipment.manifest.to_json(), shipment.parts)


def test_a_bundle_that_is_what_it_says_opens(shipment: Shipment, make: Make) -> None:
    bundle = opened(shipment)
    assert bundle.manifest == shipment.manifest
    assert bundle.spec.digest() == shipment.manifest.spec_sha256
    assert bundle.model.score(make.vector([0.0, 1.0, 0.0, 36.6])) == shipment.golden().score


def test_the_bundles_digest_is_that_of_the_manifests_bytes(shipment: Shipment) -> None:
    content = shipment.manifest.to_json()
    assert opened(shipment).digest == hashlib.sha256(content).hexdigest()
    assert open_bundle(b" " + content, shipment.parts).digest == hashlib.sha256(b" " + content).hexdigest()


def test_an_honest_model_is_deserialised(shipment: Shipment, tripwire: None) -> None:
    with pytest.raises(ModelWasRead):
        opened(shipment)


@pytest.mark.parametrize("name", PARTS)
@pytest.mark.parametrize("place", [0, -1])
def test_one_flipped_bit_is_refused_before_the_model_is_deserialised(
    shipment: Shipment, tripwire: None, name: str, place: int
) -> None:
    content = bytearray(shipment.parts[name])
    content[place] ^= 1
    with pytest.raises(BundleInvalid, match=f"{name}: expected SHA-256"):
        open_bundle(shipment.manifest.to_json(), {**shipment.parts, name: bytes(content)})


@pytest.mark.parametrize("name", PARTS)
@pytest.mark.parametrize("change", [lambda content: content[:-1], lambda content: content + b"\n", lambda _: b""])
def test_another_size_is_refused_before_the_model_is_deserialised(
    shipment: Shipment, tripwire: None, name: str, change: Any
) -> None:
    changed = change(shipment.parts[name])
    complaint = f"{name}: expected {len(shipment.parts[name])} bytes, as the manifest says, got {len(changed)}"
    with pytest.raises(BundleInvalid, match=complaint):
        open_bundle(shipment.manifest.to_json(), {**shipment.parts, name: changed})


@pytest.mark.parametrize("name", PARTS)
def test_a_missing_part_is_refused_by_name_before_the_model_is_deserialised(
    shipment: Shipment, tripwire: None, name: str
) -> None:
    parts = {other: content for other, content in shipment.parts.items() if other != name}
    with pytest.raises(BundleInvalid, match=f"{name}: expected in the bundle, but it is missing"):
        open_bundle(shipment.manifest.to_json(), parts)


def test_parts_are_not_mistaken_for_each_other(shipment: Shipment, tripwire: None) -> None:
    swapped = {**shipment.parts, FEATURES_FILE: shipment.parts[GOLDEN_FILE], GOLDEN_FILE: shipment.parts[FEATURES_FILE]}
    with pytest.raises(BundleInvalid, match=FEATURES_FILE):
        open_bundle(shipment.manifest.to_json(), swapped)


def test_a_part_is_described_by_size_and_digest() -> None:
    part = describe_part(b"abc")
    # The SHA-256 of "abc", FIPS 180-2 appendix B.1.
    assert part.sha256 == "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad"
    assert part.size == 3


def test_check_part_accepts_what_was_described(shipment: Shipment) -> None:
    for name, content in shipment.parts.items():
        check_part(shipment.manifest, name, content)


@pytest.mark.parametrize("toward", [0.0, 1.0])
def test_a_golden_score_off_by_one_bit_is_refused(shipment: Shipment, toward: float) -> None:
    score = math.nextafter(shipment.golden().score, toward)
    with pytest.raises(BundleInvalid, match=r"golden.json: vector 0 does not get its score .*treelite"):
        opened(shipment.with_golden(score=score))


def test_every_golden_vector_is_scored(shipment: Shipment) -> None:
    good = shipment.golden()
    bad = msgspec.structs.replace(good, score=math.nextafter(good.score, 1.0))
    with pytest.raises(BundleInvalid, match="vector 2 does not get its score"):
        opened(shipment.changed(golden=msgspec.json.encode((good, good, bad))))


def test_a_bundle_without_golden_vectors_is_refused(shipment: Shipment) -> None:
    with pytest.raises(BundleInvalid, match="at least one golden vector"):
        opened(shipment.changed(golden=b"[]"))


@pytest.mark.parametrize("golden", [b"{}", b"not json", b'[{"indices":[0],"values":[1.0]}]', b'[{"indicez":[0]}]'])
def test_golden_vectors_of_another_shape_are_refused(shipment: Shipment, golden: bytes) -> None:
    with pytest.raises(BundleInvalid, match="golden vectors"):
        opened(shipment.changed(golden=golden))


@pytest.mark.parametrize(
    "changes",
    [
        pytest.param({"indices": (1, 4)}, id="index beyond the row"),
        pytest.param({"indices": (1, 2**31)}, id="index beyond int32"),
        pytest.param({"indices": (1,)}, id="more values than indices"),
        pytest.param({"indices": (-1, 1)}, id="negative index"),
        pytest.param({"indices": (3, 1)}, id="indices in descending order"),
        pytest.param({"indices": (1, 1)}, id="an index twice"),
        pytest.param({"values": (1.0, 1e39)}, id="a value too large for the model"),
    ],
)
def test_a_golden_vector_that_is_no_row_is_refused(shipment: Shipment, changes: dict[str, Any]) -> None:
    with pytest.raises(BundleInvalid):
        opened(shipment.with_golden(**changes))


def test_a_golden_vector_that_the_model_cannot_score_is_refused_whatever_the_reason(shipment: Shipment) -> None:
    import numpy as np
    from sklearn.ensemble import RandomForestRegressor

    model = RandomForestRegressor(1, random_state=1).fit(np.zeros((4, 4)), np.full(4, 2.0))
    with pytest.raises(BundleInvalid):
        opened(shipment.changed(model=treelite.sklearn.import_model(model).serialize_bytes()))


def test_a_model_that_cannot_be_read_is_refused_even_with_the_right_digest(shipment: Shipment) -> None:
    with pytest.raises(BundleInvalid, match="treelite checkpoint"):
        opened(shipment.changed(model=b"not a model"))


def test_a_model_of_another_width_than_the_manifest_says_is_refused(shipment: Shipment) -> None:
    with pytest.raises(BundleInvalid, match="of 5 features, as declared; it was trained on 4"):
        opened(shipment.changed(manifest={"n_features": 5}))


def test_a_declaration_of_another_width_than_the_model_is_refused(shipment: Shipment, make: Make) -> None:
    wider = make.spec(make.age_group(30, 40, 65), make.lab_group("last", analytes=(make.analyte(),)))
    with pytest.raises(BundleInvalid, match=r"features.json: expected the declaration that the manifest names"):
        opened(shipment.changed(features=wider.to_json(), manifest={"spec_sha256": wider.digest()}))


def test_another_declaration_of_the_same_width_is_refused(shipment: Shipment, make: Make) -> None:
    other = make.spec(make.age_group(41, 65), make.lab_group("last", analytes=(make.analyte(),)))
    with pytest.raises(BundleInvalid, match=r"features.json: expected the declaration that the manifest names"):
        opened(shipment.changed(features=other.to_json()))


def test_an_unfitted_declaration_is_refused_by_name(shipment: Shipment) -> None:
    declaration = json.loads(shipment.parts[FEATURES_FILE])
    declaration["groups"][1]["analytes"][0]["bins"] = {"kind": "quantiles", "n": 3}
    with pytest.raises(BundleInvalid, match="labs/4544-3"):
        opened(shipment.changed(features=json.dumps(declaration).encode()))


def test_a_broken_declaration_is_refused_with_the_place(shipment: Shipment) -> None:
    with pytest.raises(BundleInvalid, match=r"feature declaration: .*`groups`"):
        opened(shipment.changed(features=b'{"schema_version":1}'))


@pytest.mark.parametrize("model_id", ["hematocrit", "hct-2", "a1", "a" * 64])
def test_a_model_id_may_stand_in_a_url(shipment: Shipment, model_id: str) -> None:
    assert opened(shipment.changed(manifest={"model_id": model_id})).manifest.model_id == model_id


@pytest.mark.parametrize(
    "model_id",
    ["", "a", "Hematocrit", "hct_2", "2-hct", "-hct", "hct-", "a" * 65, "hct\n", "hct/../x", "hct 2", "hämatokrit"],
)
def test_a_misnamed_model_is_refused(shipment: Shipment, model_id: str) -> None:
    content = json.loads(shipment.manifest.to_json())
    with pytest.raises(BundleInvalid, match=r"manifest.json: expected a model_id"):
        parse_manifest(json.dumps({**content, "model_id": model_id}).encode())


@pytest.mark.parametrize("score_name", ["H", "DEPLOYR_HCT", "HCT_2", "H" * 40])
def test_a_score_name_may_be_a_column_of_the_emr(shipment: Shipment, score_name: str) -> None:
    assert opened(shipment.changed(manifest={"score_name": score_name})).manifest.score_name == score_name


@pytest.mark.parametrize(
    "score_name", ["", "hct", "2HCT", "_HCT", "HCT-2", "HCT 2", "HCT/../X", "HCT\n", "H" * 41, "HÄM"]
)
def test_a_misnamed_score_is_refused(shipment: Shipment, score_name: str) -> None:
    content = json.loads(shipment.manifest.to_json())
    with pytest.raises(BundleInvalid, match=r"manifest.json: expected a score_name"):
        parse_manifest(json.dumps({**content, "score_name": score_name}).encode())


def test_a_manifest_reads_back_as_it_was_written(shipment: Shipment) -> None:
    assert parse_manifest(shipment.manifest.to_json()) == shipment.manifest


def test_the_manifests_bytes_do_not_depend_on_the_order_of_its_parts(shipment: Shipment) -> None:
    backwards = dict(reversed(shipment.manifest.parts.items()))
    assert list(backwards) != list(shipment.manifest.parts)
    assert msgspec.structs.replace(shipment.manifest, parts=backwards).to_json() == shipment.manifest.to_json()


@pytest.mark.parametrize(
    ("changes", "complaint"),
    [
        pytest.param({"schema_version": 2}, "expected schema_version 1, got 2", id="another version"),
        pytest.param({"n_features": "4"}, "`$.n_features`", id="text for a number"),
        pytest.param({"score": "x"}, "unknown field `score`", id="misspelt key"),
        pytest.param({"task": {}}, "`$.task`", id="task without its fields"),
        pytest.param({"parts": {}}, "expected the parts", id="no part"),
    ],
)
def test_a_manifest_that_is_not_one_is_refused(shipment: Shipment, changes: dict[str, Any], complaint: str) -> None:
    content = json.loads(shipment.manifest.to_json())
    with pytest.raises(BundleInvalid) as refused:
        parse_manifest(json.dumps({**content, **changes}).encode())
    assert str(refused.value).startswith("manifest.json: ")
    assert complaint in str(refused.value)


@pytest.mark.parametrize("change", ["missing", "unknown"])
def test_a_manifest_names_every_part_and_no_other(shipment: Shipment, change: str) -> None:
    content = json.loads(shipment.manifest.to_json())
    if change == "missing":
        del content["parts"][MODEL_FILE]
    else:
        content["parts"]["setup.py"] = content["parts"][MODEL_FILE]
    with pytest.raises(BundleInvalid, match=f"expected the parts {', '.join(PARTS)}"):
        parse_manifest(json.dumps(content).encode())


@pytest.mark.parametrize("source", [b"", b"{", b"null", b"[]", b"\xff", b'{"model_id":"\xff"}'])
def test_a_manifest_that_is_no_json_object_is_refused(source: bytes) -> None:
    with pytest.raises(BundleInvalid, match=r"manifest.json: "):
        parse_manifest(source)
