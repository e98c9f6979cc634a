"""The same order, signed just now, as each of the three ways in asks about it; and the deployment that answers them."""

from __future__ import annotations

import json
from pathlib import Path

from deployr_cli.asking import cda_document, json_request, order_sign_context
from deployr_cli.demo.events import OrderSigned

HOOK_INSTANCE = "d1577c69-dfbe-44ad-ba6d-3e05e953b2ea"
_DEPLOYMENT = """\
# A threshold of 0 advises on every score, so that there is something to see.
schema_version: 1
model: {model}
mode: live
threshold: 0.0
groups: [cbc]
form: {form}
decimals: 2
advisory:
  headline: "{title} is likely abnormal: {{score_percent}}"
  detail: "Score **{{score}}**"
  source_label: deployr
  acknowledge_reasons:
    - {{code: changed, display: The patient's state has changed}}
  suggestions:
    - label: Take the order back
      actions: [{{kind: delete, description: Take the order back}}]
"""

BATCH = "ward"
_BATCH = """\
# Everybody who lies in the hospital, each hour of the EMR's clock.
schema_version: 1
name: {name}
models: [{models}]
schedule: "0 0 * * * *"
worklist:
  from: census
  units: ["1"]
  patient_id_type: FHIR
"""


def write_batch(folder: Path, *, models: tuple[str, ...]) -> None:
    """Write a batch of everybody in the mock EMR's one unit, for these models."""
    folder.mkdir(exist_ok=True)
    (folder / f"{BATCH}.yaml").write_text(_BATCH.format(name=BATCH, models=", ".join(models)), encoding="utf-8")


def write_deployment(folder: Path, *, model: str, form: bool) -> None:
    """Write a model's deployment file: live, and always advising."""
    folder.mkdir(exist_ok=True)
    text = _DEPLOYMENT.format(model=model, title=model.capitalize(), form="true" if form else "false")
    (folder / f"{model}.yaml").write_text(text, encoding="utf-8")


def write_requests(folder: Path, event: OrderSigned, *, panel: str) -> None:
    """Write ``order.json``, ``order.xml`` (CDA) and ``order-sign.json`` (CDS Hooks) about one order.

    Args:
        folder: where.
        event: the order, of an encounter.
        panel: what is ordered, by its LOINC code.

    Raises:
        CommandFailed: the example document is not beside the packages.
    """
    asked = {name: value for name, value in json_request(event).items() if name != "idempotencyKey"}
    hook = {
        "hook": "order-sign",
        "hookInstance": HOOK_INSTANCE,
        "context": order_sign_context(event, panel=panel),
    }
    (folder / "order.json").write_text(json.dumps(asked, indent=2) + "\n", encoding="utf-8")
    (folder / "order-sign.json").write_text(json.dumps(hook, indent=2) + "\n", encoding="utf-8")
    (folder / "order.xml").write_text(cda_document(event), encoding="utf-8")
