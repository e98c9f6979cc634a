#!/usr/bin/env bash
# Writes both hash-pinned lists from pyproject.toml, for Python 3.11 to 3.13 on every platform, without registry addresses.
set -eu
cd "$(dirname "$0")/.."
compile() {
  uv pip compile pyproject.toml --universal --python-version 3.11 --generate-hashes \
    --no-header --no-annotate --no-emit-index-url --no-emit-find-links --quiet --allow-unsafe "$@"
}
compile --extra azure --output-file requirements.txt
compile --extra dev --constraint requirements.txt --output-file requirements-dev.txt
