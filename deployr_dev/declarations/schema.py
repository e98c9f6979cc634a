"""The JSON Schema of declarations as text, for docs/feature-declaration.schema.json.

``python -m deployr_dev.declarations.schema > docs/feature-declaration.schema.json`` writes it anew.
"""

from __future__ import annotations

import json
import sys

from deployr_core.features import json_schema


def schema_text() -> str:
    """Give the schema as it is kept in docs/: indented, in a fixed order of keys, with a final newline."""
    dialect = {"$schema": "https://json-schema.org/draft/2020-12/schema", "title": "Feature declaration"}
    return json.dumps({**dialect, **json_schema()}, indent=2, ensure_ascii=False) + "\n"


if __name__ == "__main__":
    sys.stdout.write(schema_text())
