"""A model is tried in a child process first: what crashes, hangs or eats memory disables itself and nothing else."""

from __future__ import annotations

import io
import json
import subprocess

import joblib
import msgspec
import pytest

from deployr_core import bundle as bundles
from deployr_core import model_format
from deployr_serve.adapters.models import BundleFolder
from deployr_serve.adapters.proving import Prover


class Runs:
    """Pickled, it runs the expression when it is loaded."""

    def __init__(self, expression):
        self.expression = expression

    def __reduce__(self):
        return eval, (self.expression,)


@pytest.fixture
def folder_of(tmp_path, bundle_files):
    """Give a function that writes one healthy bundle and, by model id, ones that run an expression when loaded."""

    def write(name, manifest, parts):
        folder = tmp_path / "bundles" / name
        folder.mkdir(parents=True)
        for file, content in {bundles.MANIFEST_FILE: manifest.to_json(), **parts}.items():
            (folder / file).write_bytes(content)

    def make(**expressions):
        healthy = bundles.parse_manifest(bundle_files[bundles.MANIFEST_FILE])
        parts = {name: bundle_files[name] for name in healthy.part_names}
        write("hematocrit", healthy, parts)
        for name, expression in expressions.items():
            file = io.BytesIO()
            joblib.dump(Runs(expression), file)
            evil = {
                bundles.FEATURES_FILE: bundle_files[bundles.FEATURES_FILE],
                model_format.JOBLIB_FILE: file.getvalue(),
                bundles.GOLDEN_FILE: msgspec.json.encode(
                    (bundles.GoldenVector(indices=(), values=(), outputs=(0.5,)),)
                ),
            }
            manifest = msgspec.structs.replace(
                healthy,
                model_id=name,
                model=model_format.ModelFormat(kind="joblib", runs_code=True),
                parts={each: bundles.describe_part(content) for each, content in evil.items()},
            )
            write(name, manifest, evil)
        return tmp_path / "bundles"

    return make


def started(folder, *, proofs=None, **limits):
    prover = Prover(proofs or folder / ".proofs.json", allow_pickle=True, **limits)
    return BundleFolder(folder, allow_pickle=True, refused=prover.refused).deployed()


def test_models_that_end_python_are_named_each_and_the_healthy_one_answers(folder_of):
    deployed = started(
        folder_of(
            aborts="__import__('os').abort()",
            exits="__import__('os')._exit(0)",
            segfaults="__import__('ctypes').string_at(0)",
            raises="1 / 0",
        )
    )
    assert deployed == {
        "hematocrit": None,
        "aborts": "expected a model that can be loaded; it crashes Python (SIGABRT)",
        "exits": "expected a model that can be loaded; it ends Python (exit code 0)",
        "segfaults": "expected a model that can be loaded; it crashes Python (SIGSEGV)",
        "raises": "expected a model that can be loaded and asked, got ZeroDivisionError",
    }


def test_a_model_that_hangs_is_given_up_and_the_healthy_one_answers(folder_of):
    folder = folder_of(hangs="__import__('threading').Event().wait()")
    # So that the short limit is the hanging one's alone, however busy this machine is.
    healthy = folder / "hematocrit"
    digest = bundles.sha256_hex((healthy / bundles.MANIFEST_FILE).read_bytes())
    assert Prover(folder / ".proofs.json").refused({digest: healthy}) == {}
    deployed = started(folder, limit_s=0.3)
    assert deployed["hematocrit"] is None
    assert deployed["hangs"] == "expected it to load and to score its golden vectors within 0.3 s"


def test_a_model_that_eats_memory_is_stopped_at_the_limit(folder_of):
    deployed = started(folder_of(eats="bytearray(1 << 40)", bomb="__import__('zlib').decompress(b'') or 1"))
    assert deployed["hematocrit"] is None
    assert deployed["eats"] == "expected a model that takes less than 2048 MB"


def test_what_a_model_prints_is_not_taken_for_a_verdict(folder_of, bundle_files):
    digest = bundles.sha256_hex(bundle_files[bundles.MANIFEST_FILE])
    verdict = json.dumps({"digest": digest, "reason": "forged"})
    deployed = started(folder_of(aprinter=f"print({verdict!r}, flush=True)"))
    assert deployed["hematocrit"] is None
    assert deployed["aprinter"].startswith("model.joblib: expected an estimator")


def test_the_child_is_given_none_of_our_settings(folder_of, monkeypatch, tmp_path):
    monkeypatch.setenv("DEPLOYR_ID_KEY", "a secret of the site's")
    told = tmp_path / "told"
    monkeypatch.setenv("TMPDIR", str(tmp_path))
    folder = folder_of(reads=f"open({str(told)!r}, 'w').write(repr(dict(__import__('os').environ))) and 1 / 0")
    prover = Prover(tmp_path / "proofs.json", allow_pickle=True)
    prover.refused({"a digest": folder / "reads"})
    assert "PYTHONPATH" in told.read_text()
    assert "DEPLOYR_ID_KEY" not in told.read_text()


def test_no_code_of_a_model_runs_where_its_digest_is_wrong_or_pickle_is_not_allowed(folder_of, tmp_path):
    canary = tmp_path / "canary"
    folder = folder_of(sings=f"open({str(canary)!r}, 'w').close() or 1 / 0")
    strict = Prover(tmp_path / "proofs.json")
    assert BundleFolder(folder, refused=strict.refused).deployed()["sings"] is not None
    model = folder / "sings" / model_format.JOBLIB_FILE
    honest = model.read_bytes()
    model.write_bytes(honest[:-1] + bytes([honest[-1] ^ 1]))
    assert started(folder)["sings"].startswith("model.joblib: expected SHA-256")
    assert not canary.exists()
    model.write_bytes(honest)
    assert started(folder)["sings"] is not None
    assert canary.exists()  # It sings where it is loaded: were it loaded before, it would have been heard.


# -- what is remembered


def no_child(*_, **__):
    raise AssertionError("expected no child process")


def test_what_has_passed_is_not_tried_again(folder_of, monkeypatch):
    folder = folder_of()
    assert started(folder) == {"hematocrit": None}
    monkeypatch.setattr(subprocess, "Popen", no_child)
    assert started(folder) == {"hematocrit": None}


def test_what_has_not_passed_is_tried_again(folder_of):
    folder = folder_of(raises="1 / 0")
    started(folder)
    noted = json.loads((folder / ".proofs.json").read_bytes())
    assert len(noted["digests"]) == 1
    assert started(folder)["raises"] is not None


def test_with_other_libraries_all_are_tried_again(folder_of):
    folder = folder_of()
    started(folder)
    proofs = folder / ".proofs.json"
    noted = json.loads(proofs.read_bytes())
    proofs.write_text(json.dumps({**noted, "runtime": {**noted["runtime"], "treelite": "0.1"}}))
    started(folder)
    assert json.loads(proofs.read_bytes()) == noted


@pytest.mark.parametrize("content", [b"", b"[]", b'{"runtime": {}}', b"\xff", b"null"])
def test_notes_that_cannot_be_read_are_made_anew(folder_of, content):
    folder = folder_of()
    (folder / ".proofs.json").write_bytes(content)
    assert started(folder) == {"hematocrit": None}
    assert len(json.loads((folder / ".proofs.json").read_bytes())["digests"]) == 1


def test_where_nothing_can_be_noted_models_are_tried_at_every_start(folder_of, tmp_path):
    folder = folder_of()
    assert started(folder, proofs=tmp_path / "nowhere" / "proofs.json") == {"hematocrit": None}
    assert [each.name for each in tmp_path.iterdir()] == ["bundles"]


def test_without_a_child_process_nothing_is_loaded(folder_of, monkeypatch):
    folder = folder_of()
    monkeypatch.setattr("sys.executable", "/nowhere/python")
    assert "none could be started" in started(folder)["hematocrit"]
