from __future__ import annotations

import hashlib
import json
import math
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

import msgspec
import pytest
import treelite

from deployr_core.bundle import (
    CALIBRATION_FILE,
    FEATURES_FILE,
    GOLDEN_FILE,
    PARTS,
    Bundle,
    BundleInvalid,
    GoldenVector,
    Manifest,
    check_part,
    describe_part,
    open_bundle,
    parse_manifest,
)
from deployr_core.exact import logistic
from deployr_core.linear import LinearNumbers
from deployr_core.model_format import JOBLIB_FILE, LINEAR_FILE, MODEL_FILE, ModelFormat
from deployr_core.scoring import IsotonicTable, SigmoidTable, calibration_json
from deployr_core.signing import KeyUnusable, sign_manifest, trusted_key, verify_manifest

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
    assert bundle.model.answer(make.vector([0.0, 1.0, 0.0, 36.6])) == shipment.golden().outputs


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
    score = math.nextafter(shipment.golden().outputs[0], toward)
    with pytest.raises(BundleInvalid, match=r"golden.json: vector 0 does not get its score .*treelite"):
        opened(shipment.with_golden(outputs=[score]))


def test_every_golden_vector_is_scored(shipment: Shipment) -> None:
    good = shipment.golden()
    bad = msgspec.structs.replace(good, outputs=(math.nextafter(good.outputs[0], 1.0),))
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
        pytest.param({"schema_version": 1}, "expected schema_version 3, got 1", id="another version"),
        pytest.param({"model": {"kind": "onnx"}}, "`$.model.kind`", id="unknown kind of model"),
        pytest.param({"model": {"kind": "joblib"}}, "expected runs_code", id="joblib that claims to be data"),
        pytest.param({"model": {"runs_code": True}}, "expected runs_code", id="data that claims to run code"),
        pytest.param({"model": {"kind": "linear"}}, "expected the parts features.json, model.json", id="another file"),
        pytest.param(
            {"model": {"kind": "linear", "zero_is_missing": True}}, "of trees only", id="missing values of numbers"
        ),
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


# -- models that are numbers, and calibrations


def shipped_as(
    shipment: Shipment, model: ModelFormat, golden: float, **files: bytes
) -> tuple[Manifest, dict[str, bytes]]:
    """Give the shipment with another model; its one golden row is (0, 1, 0, 36.6)."""
    vector = GoldenVector(indices=(1, 3), values=(1.0, 36.6), outputs=(golden,))
    parts = {
        FEATURES_FILE: shipment.parts[FEATURES_FILE],
        **{name.replace("_json", ".json").replace("_joblib", ".joblib"): content for name, content in files.items()},
        GOLDEN_FILE: msgspec.json.encode((vector,)),
    }
    described = {name: describe_part(content) for name, content in parts.items()}
    return msgspec.structs.replace(shipment.manifest, model=model, parts=described), parts


NUMBERS = LinearNumbers(
    coefficients=((0.0, -1.0, 0.0, 0.25),), intercepts=(1.0,), link="logit", scale=(1.0, 2.0, 1.0, 12.2)
)
# 1 - 1/2 + 36.6/12.2 · 0.25, where 36.6/12.2 is a little more than 3 in float64.
MARGIN = 1.0 - 0.5 + (36.6 / 12.2) * 0.25


def test_a_linear_model_is_numbers(shipment: Shipment, make: Make) -> None:
    manifest, parts = shipped_as(shipment, ModelFormat(kind="linear"), logistic(MARGIN), model_json=NUMBERS.to_json())
    assert set(parts) == {FEATURES_FILE, LINEAR_FILE, GOLDEN_FILE}
    bundle = open_bundle(manifest.to_json(), parts)
    assert bundle.model.score(make.vector([0.0, 0.0, 0.0, 0.0])) == logistic(1.0)


@pytest.mark.parametrize(
    ("table", "score"),
    [
        (SigmoidTable(a=-2.0, b=0.5), logistic(2.0 * logistic(MARGIN) - 0.5)),
        (IsotonicTable(thresholds=(0.0, 1.0), values=(0.25, 0.25)), 0.25),
    ],
)
def test_a_calibration_is_applied_after_the_model(shipment: Shipment, table: Any, score: float) -> None:
    manifest, parts = shipped_as(
        shipment,
        ModelFormat(kind="linear"),
        score,
        model_json=NUMBERS.to_json(),
        calibration_json=calibration_json(table),
    )
    assert manifest.part_names == (FEATURES_FILE, LINEAR_FILE, CALIBRATION_FILE, GOLDEN_FILE)
    assert open_bundle(manifest.to_json(), parts).manifest == manifest


@pytest.mark.parametrize("name", [LINEAR_FILE, CALIBRATION_FILE])
def test_one_flipped_bit_in_numbers_is_refused(shipment: Shipment, name: str) -> None:
    table = calibration_json(IsotonicTable(thresholds=(0.0, 1.0), values=(0.25, 0.25)))
    manifest, parts = shipped_as(
        shipment, ModelFormat(kind="linear"), 0.25, model_json=NUMBERS.to_json(), calibration_json=table
    )
    parts[name] = parts[name][:-2] + bytes([parts[name][-2] ^ 1]) + parts[name][-1:]
    with pytest.raises(BundleInvalid, match=f"{name}: expected SHA-256"):
        open_bundle(manifest.to_json(), parts)


@pytest.mark.parametrize(
    ("content", "complaint"),
    [
        (b"{}", "`coefficients`"),
        (b"not json", "as numbers"),
        (NUMBERS.to_json().replace(b"0.25", b"1e999"), "model.json"),
        (NUMBERS.to_json().replace(b"-1.0,", b""), "of 4 features, as declared; it has 3|as many scales"),
        (NUMBERS.to_json().replace(b"12.2", b"0.0"), "scales above 0"),
        (NUMBERS.to_json().replace(b"logit", b"probit"), "link"),
    ],
)
def test_numbers_that_are_no_linear_model_are_refused(shipment: Shipment, content: bytes, complaint: str) -> None:
    manifest, parts = shipped_as(shipment, ModelFormat(kind="linear"), 0.5, model_json=content)
    with pytest.raises(BundleInvalid, match=complaint):
        open_bundle(manifest.to_json(), parts)


# -- models that run code


class Half:
    """An estimator by its interface alone."""

    n_features_in_ = 4

    def predict(self, rows: Any) -> list[float]:
        return [0.5] * len(rows)


@pytest.fixture
def joblib_bundle(shipment: Shipment) -> tuple[Manifest, dict[str, bytes]]:
    return shipped_as(shipment, ModelFormat(kind="joblib", runs_code=True), 0.5, model_joblib=b"whatever was pickled")


def test_a_model_that_runs_code_is_refused_unless_somebody_loads_it(
    joblib_bundle: tuple[Manifest, dict[str, bytes]],
) -> None:
    manifest, parts = joblib_bundle
    with pytest.raises(BundleInvalid, match=r"model.joblib: .*runs code.*DEPLOYR_ALLOW_PICKLE=1"):
        open_bundle(manifest.to_json(), parts)
    loaded = []

    def load(manifest: Manifest, content: bytes) -> object:
        loaded.append(content)
        return Half()

    assert open_bundle(manifest.to_json(), parts, load_pickle=load).model.score
    assert loaded == [b"whatever was pickled"]


@pytest.mark.parametrize("name", [JOBLIB_FILE, FEATURES_FILE, GOLDEN_FILE])
@pytest.mark.parametrize("change", [lambda c: bytes([c[0] ^ 1]) + c[1:], lambda c: c[:-1], lambda _: b""])
def test_nothing_is_loaded_that_runs_code_before_every_digest_is_right(
    joblib_bundle: tuple[Manifest, dict[str, bytes]], name: str, change: Callable[[bytes], bytes]
) -> None:
    manifest, parts = joblib_bundle

    def load(manifest: Manifest, content: bytes) -> object:
        raise ModelWasRead

    with pytest.raises(ModelWasRead):
        open_bundle(manifest.to_json(), parts, load_pickle=load)
    with pytest.raises(BundleInvalid, match=f"{name}: expected"):
        open_bundle(manifest.to_json(), {**parts, name: change(parts[name])}, load_pickle=load)


# -- signatures


def key_pair(seed: int) -> tuple[bytes, bytes]:
    """Give a private and a public key as PEM, always the same ones."""
    from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
    from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat, PublicFormat

    key = Ed25519PrivateKey.from_private_bytes(bytes([seed]) * 32)
    return (
        key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption()),
        key.public_key().public_bytes(Encoding.PEM, PublicFormat.SubjectPublicKeyInfo),
    )


OURS, THEIRS = key_pair(1), key_pair(2)


def test_a_bundle_signed_by_a_trusted_key_says_by_which(shipment: Shipment) -> None:
    content = shipment.manifest.to_json()
    keys = (trusted_key(THEIRS[1]), trusted_key(OURS[1]))
    bundle = open_bundle(content, shipment.parts, signature=sign_manifest(content, OURS[0]), trusted_keys=keys)
    assert bundle.signed_by == keys[1].key_id
    # Without a key to check it with, a signature says nothing.
    assert open_bundle(content, shipment.parts, signature=sign_manifest(content, OURS[0])).signed_by is None


def test_signing_twice_gives_the_same_bytes(shipment: Shipment) -> None:
    content = shipment.manifest.to_json()
    assert sign_manifest(content, OURS[0]) == sign_manifest(content, OURS[0])


def with_fields(content: bytes, **changes: Any) -> bytes:
    return json.dumps({**json.loads(content), **changes}).encode()


def badly_signed(content: bytes) -> dict[str, tuple[bytes | None, str]]:
    """Give what may lie beside a manifest in place of a trusted signature, and what is said of it."""
    good, theirs = sign_manifest(content, OURS[0]), sign_manifest(content, THEIRS[0])
    return {
        "not signed": (None, "but the bundle is not signed"),
        "by another key": (theirs, "got one by"),
        "by another key under the trusted one's name": (
            with_fields(theirs, key_id=trusted_key(OURS[1]).key_id),
            "but it is of other bytes",
        ),
        "of other bytes": (sign_manifest(content + b" ", OURS[0]), "but it is of other bytes"),
        "too short": (with_fields(good, signature="AAAA"), "but it is of other bytes"),
        "empty": (b"", "expected algorithm"),
        "cut off": (good[:-1], "expected algorithm"),
        "no algorithm": (with_fields(good, algorithm="none"), "expected algorithm"),
        "brings its own key": (with_fields(good, key="-----BEGIN PUBLIC KEY-----"), "unknown field"),
    }


@pytest.mark.parametrize("how", badly_signed(b"any manifest"))
def test_a_bundle_that_is_not_signed_by_a_trusted_key_is_refused_before_the_model_is_read(
    shipment: Shipment, tripwire: None, how: str
) -> None:
    content = shipment.manifest.to_json()
    signature, complaint = badly_signed(content)[how]
    with pytest.raises(BundleInvalid, match=rf"manifest.sig: .*{complaint}"):
        open_bundle(content, shipment.parts, signature=signature, trusted_keys=(trusted_key(OURS[1]),))


def test_every_flipped_bit_of_a_signed_manifest_is_noticed(shipment: Shipment) -> None:
    content = shipment.manifest.to_json()
    signature, keys = sign_manifest(content, OURS[0]), (trusted_key(OURS[1]),)
    for place in range(0, len(content), 7):
        changed = content[:place] + bytes([content[place] ^ 1]) + content[place + 1 :]
        with pytest.raises(BundleInvalid, match="of other bytes"):
            open_bundle(changed, shipment.parts, signature=signature, trusted_keys=keys)


def test_the_signature_is_ed25519_of_the_manifests_bytes_themselves() -> None:
    """RFC 8032, section 7.1, test 2: the one-byte message 72 under this key."""
    from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
    from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat

    secret = bytes.fromhex("4ccd089b28ff96da9db6c346ec114e0f5b8a319f35aba624da8cf6ed4fb8a6fb")
    pem = Ed25519PrivateKey.from_private_bytes(secret).private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption())
    written = msgspec.json.decode(sign_manifest(b"\x72", pem))
    assert msgspec.convert(written["signature"], bytes, strict=False).hex() == (
        "92a009a9f0d4cab8720e820b5f642540a2b27b5416503f8fb3762223ebdb69da"
        "085ac1e43e15996e458f3613d0f11d8c387b2eaeb4302aeeb00d291612bb0c00"
    )


@pytest.mark.parametrize("pem", [b"", b"not a key", OURS[0]])
def test_only_a_public_key_is_trusted(pem: bytes) -> None:
    with pytest.raises(KeyUnusable, match="public Ed25519 key"):
        trusted_key(pem)


@pytest.mark.parametrize("pem", [b"", b"not a key", OURS[1]])
def test_only_a_private_key_signs(pem: bytes) -> None:
    with pytest.raises(KeyUnusable, match="private Ed25519 key"):
        sign_manifest(b"", pem)


def test_a_key_of_another_kind_is_refused() -> None:
    from cryptography.hazmat.primitives.asymmetric.ec import SECP256R1, generate_private_key
    from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat

    public = generate_private_key(SECP256R1()).public_key()
    with pytest.raises(KeyUnusable):
        trusted_key(public.public_bytes(Encoding.PEM, PublicFormat.SubjectPublicKeyInfo))


def test_verifying_gives_the_id_of_the_key() -> None:
    key = trusted_key(OURS[1])
    assert verify_manifest(b"abc", sign_manifest(b"abc", OURS[0]), (key,)) == key.key_id
    assert len(key.key_id) == 16
