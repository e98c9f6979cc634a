"""Tries models out in a child process before this one loads them: what crashes, hangs or eats memory does it there.

A child reads a bundle as serving does, checks signature and digests, loads the model and scores its golden vectors. One
child tries all that were not tried before, and tells after each; where it ends, the bundle at hand is to blame, and
another child goes on with the rest. Digests that passed are noted in a file, with the versions of what they were tried
with, so that a start without news starts no child. The child has limits and none of our settings in its environment; it
is no sandbox, and what a trusted bundle's code may do elsewhere it may do there.
"""

from __future__ import annotations

import json
import os
import platform
import queue
import signal
import subprocess
import sys
import tempfile
import threading
from collections.abc import Mapping, Sequence
from contextlib import suppress
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import IO, Any

from deployr_core.bundle import BundleInvalid
from deployr_core.signing import trusted_key

LIBRARIES = ("treelite", "numpy", "scikit-learn", "joblib")
"""What models are loaded and scored by."""

PROOFS_FILE = ".proofs.json"
"""What the notes are called beside the bundles."""

_FOR_IMPORTS_S = 60.0
_KEPT_ENVIRONMENT = ("PATH", "LD_LIBRARY_PATH", "SYSTEMROOT", "LANG", "TMPDIR")
_MOST_NOTED = 200


def installed_versions() -> dict[str, str | None]:
    """Give the version of each of `LIBRARIES` on this machine; None where it is not installed."""
    return {name: _installed(name) for name in LIBRARIES}


class Prover:
    """Tries bundles in child processes; see this module.

    Args:
        proofs: where it is noted which digests passed; where it cannot be written, they are tried at every start.
        allow_pickle: as serving has it.
        trusted_keys: as serving has them, PEM.
        limit_s: how long one bundle may take.
        memory_bytes: how much one child may take beside the libraries.
    """

    def __init__(
        self,
        proofs: Path,
        *,
        allow_pickle: bool = False,
        trusted_keys: Sequence[bytes] = (),
        limit_s: float = 30.0,
        memory_bytes: int = 2 << 30,
    ) -> None:
        self._proofs = proofs
        self._allow_pickle = allow_pickle
        self._trusted_keys = tuple(key.decode() for key in trusted_keys)
        self._limit_s = limit_s
        self._memory_bytes = memory_bytes

    def refused(self, bundles: Mapping[str, Path]) -> dict[str, str]:
        """Give what is wrong with each bundle that may not be loaded, by its digest.

        Args:
            bundles: the folder of each by its digest, which were checked a moment ago.
        """
        noted = self._noted()
        left = {digest: folder for digest, folder in bundles.items() if digest not in noted}
        reasons: dict[str, str] = {}
        passed: list[str] = []
        while left:
            told, ended = self._one_child(left)
            for digest, reason in told.items():
                del left[digest]
                if reason is None:
                    passed.append(digest)
                else:
                    reasons[digest] = reason
            if left:
                culprit = next(iter(left))
                del left[culprit]
                reasons[culprit] = ended
        if passed:
            self._note([*noted, *passed])
        return reasons

    def _one_child(self, left: Mapping[str, Path]) -> tuple[dict[str, str | None], str]:
        """Try as many as one child survives: what it told by digest, and how it ended."""
        asked = {
            "bundles": {digest: str(folder.absolute()) for digest, folder in left.items()},
            "allow_pickle": self._allow_pickle,
            "trusted_keys": self._trusted_keys,
            "memory_bytes": self._memory_bytes,
            "cpu_s": self._limit_s * len(left) + _FOR_IMPORTS_S,
        }
        environment = {name: os.environ[name] for name in _KEPT_ENVIRONMENT if name in os.environ}
        # A thread of a library's own that comes and goes costs memory, and more than one CPU.
        environment |= {"PYTHONPATH": os.pathsep.join(sys.path), "OMP_NUM_THREADS": "1", "OPENBLAS_NUM_THREADS": "1"}
        told: dict[str, str | None] = {}
        try:
            child = subprocess.Popen(
                [sys.executable, "-P", "-m", "deployr_serve.adapters.proving"],
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                stderr=subprocess.DEVNULL,
                env=environment,
            )
        except OSError as error:
            return told, f"expected to try it in a child process first; none could be started ({error.strerror})"
        try:
            lines = _lines_of(child)
            with suppress(BrokenPipeError):
                _pipe(child.stdin).write(json.dumps(asked).encode())
                _pipe(child.stdin).close()
            limit_s = _FOR_IMPORTS_S
            while True:
                try:
                    line = lines.get(timeout=limit_s)
                except queue.Empty:
                    return told, f"expected it to load and to score its golden vectors within {self._limit_s:g} s"
                if line is None:
                    break
                limit_s = self._limit_s
                answer = json.loads(line)
                if "digest" in answer:
                    told[answer["digest"]] = answer["reason"]
        finally:
            child.kill()
            code = child.wait()
            _pipe(child.stdout).close()
        return told, _how_it_ended(code)

    def _noted(self) -> tuple[str, ...]:
        try:
            read = json.loads(self._proofs.read_bytes())
            if read["runtime"] == _runtime() and all(isinstance(each, str) for each in read["digests"]):
                return tuple(read["digests"])
        except (OSError, ValueError, KeyError, TypeError):
            # None yet, or none of ours: it is made anew.
            pass
        return ()

    def _note(self, digests: Sequence[str]) -> None:
        content = {"runtime": _runtime(), "digests": list(dict.fromkeys(digests))[-_MOST_NOTED:]}
        # A folder that cannot be written, as of an app that runs from a package, is no error: it is tried again.
        with suppress(OSError), tempfile.NamedTemporaryFile(dir=self._proofs.parent, delete=False) as file:
            try:
                file.write(json.dumps(content, indent=1).encode())
                file.close()
                # Another user may be the one who serves; there is nothing secret in it.
                Path(file.name).chmod(0o644)
                Path(file.name).replace(self._proofs)
            except BaseException:
                Path(file.name).unlink(missing_ok=True)
                raise


def main() -> None:
    """Try what is asked for on standard input, and tell after each bundle; the child's side."""
    asked = json.load(sys.stdin)
    # Only we tell: a model that prints must not be taken for a verdict.
    telling = os.fdopen(os.dup(1), "w")
    os.dup2(os.open(os.devnull, os.O_WRONLY), 1)
    from deployr_serve.adapters.bundle_files import read_bundle

    keys = tuple(trusted_key(pem.encode()) for pem in asked["trusted_keys"])
    _limit(memory_bytes=asked["memory_bytes"], cpu_s=asked["cpu_s"])
    print("{}", file=telling, flush=True)
    for digest, folder in asked["bundles"].items():
        reason = None
        try:
            bundle = read_bundle(Path(folder), allow_pickle=asked["allow_pickle"], trusted_keys=keys)
        except BundleInvalid as error:
            reason = str(error)
        except MemoryError:
            reason = f"expected a model that takes less than {asked['memory_bytes'] >> 20} MB"
        except Exception as error:  # noqa: BLE001 whatever a model does when it is loaded, it is told and the next is tried
            reason = f"expected a model that can be loaded and asked, got {type(error).__name__}"
        else:
            if bundle.digest != digest:
                reason = "expected the bundle to stay as it was while it was tried"
            del bundle
        print(json.dumps({"digest": digest, "reason": reason}), file=telling, flush=True)
    telling.flush()
    # Without whatever a model has left to be run at the end.
    os._exit(0)


def _limit(*, memory_bytes: int, cpu_s: float) -> None:
    try:
        import resource
    except ImportError:
        # Not on Windows; there the time alone is limited.
        return
    with suppress(OSError, ValueError):
        pages = int(Path("/proc/self/statm").read_text(encoding="ascii").split()[0])
        taken = pages * resource.getpagesize()
        resource.setrlimit(resource.RLIMIT_AS, (taken + memory_bytes, taken + memory_bytes))
    # Ends it even where its parent has died.
    resource.setrlimit(resource.RLIMIT_CPU, (int(cpu_s) + 1, int(cpu_s) + 1))
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))


def _lines_of(child: subprocess.Popen[bytes]) -> queue.SimpleQueue[bytes | None]:
    """Read the child's lines as they come; None ends them."""
    lines: queue.SimpleQueue[bytes | None] = queue.SimpleQueue()
    stdout = _pipe(child.stdout)

    def read() -> None:
        with suppress(ValueError):
            for line in stdout:
                lines.put(line)
        lines.put(None)

    threading.Thread(target=read, name="proving", daemon=True).start()
    return lines


def _how_it_ended(code: int) -> str:
    if code < 0:
        return f"expected a model that can be loaded; it crashes Python ({signal.Signals(-code).name})"
    return f"expected a model that can be loaded; it ends Python (exit code {code})"


def _pipe(pipe: IO[bytes] | None) -> IO[bytes]:
    if pipe is None:
        raise TypeError("expected a pipe to the child")
    return pipe


def _runtime() -> dict[str, Any]:
    return {"python": sys.version, "machine": platform.machine(), **installed_versions()}


def _installed(library: str) -> str | None:
    try:
        return version(library)
    except PackageNotFoundError:
        return None


if __name__ == "__main__":
    main()
