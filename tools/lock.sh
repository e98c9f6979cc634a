#!/usr/bin/env bash
# Writes the hash-pinned lists from pyproject.toml, for Python 3.11 to 3.13 on every platform, without registry addresses:
# of the deployed app, of the container image, and of whoever works on it. The first constrains the others.
set -eu
cd "$(dirname "$0")/.."
compile() {
  uv pip compile pyproject.toml --universal --python-version 3.11 --generate-hashes \
    --no-header --no-annotate --no-emit-index-url --no-emit-find-links --quiet --allow-unsafe "$@"
}
compile --extra azure --extra telemetry --output-file requirements.txt
compile --extra azure --extra telemetry --extra host --constraint requirements.txt --output-file requirements-host.txt
compile --extra dev --constraint requirements.txt --output-file requirements-dev.txt
