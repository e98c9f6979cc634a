"""What one model answered, as the files that Epic's open-source seismometer reads: predictions, events, meanings.

A packet is a context of its own, so that its label goes to its score and to no other of the same patient's. Only
packets with an outcome that is ripe are written: seismometer takes a prediction without an event for one that nothing
came of, and of the last days only what happened early is known, not yet what did not happen.

Source: the configuration and its example in https://github.com/epic-open-source/seismometer [seen].
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import pandas as pd
import yaml

from deployr_core.groups import FEWEST_PATIENTS
from deployr_dash.frames import PACKETS
from deployr_dash.loading import extracted_at, load_frame
from deployr_dash.panels.panel import is_ripe
from deployr_dash.panels.people import PROPERTIES

_PATIENT, _PACKET, _SCORE, _TIME = "patient_code", "row", "score", "as_of"
_COHORTS: Mapping[str, str] = {
    **PROPERTIES,
    "version": "Version",
    "site": "Site",
    "channel": "Channel",
    "mode": "Mode",
    "arm": "Arm",
}
_LABEL, _SHOWN, _ACCEPTED = "label", "shown", "accepted"
_EVENTS = {
    _LABEL: ("Outcome", "target", "1 if what the model predicts happened, else 0; all were ripe"),
    _SHOWN: ("Advisory shown", "intervention", "1 if the advisory was shown"),
    _ACCEPTED: ("Advisory accepted", "outcome", "1 if it was accepted, 0 if overridden or acknowledged only"),
}
"""By the event's type: its name on screen, how seismometer uses it, and its meaning."""
_LEAST_CENSORED = 10
"""The least that seismometer allows as the size below which a cohort is not shown."""


class NotForSeismometer(ValueError):
    """There is nothing that it could show; the message says what was expected."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Written:
    """What came of it: how many predictions with a ripe outcome there are, and how many scores were left out.

    Left out are those whose outcome is not ripe, though it came early, was not observed, or is not of yes or no.
    """

    predictions: int
    left_out: int


def write_seismometer(extract: Path, folder: Path, *, model: str) -> Written:
    """Write `config.yml`, which names all the other files, for one model of yes or no.

    Instants are in UTC, without saying so, as seismometer takes them. Patients are the extract's numbers.

    Raises:
        ExtractMissing: there is no extract.
        NotForSeismometer: no packets with a score, or no ripe label of yes or no among them.
        FileExistsError: the folder holds something else.
    """
    columns = (_PACKET, _PATIENT, _TIME, "received_at", _SCORE, "threshold", *_COHORTS, "shadow_of", "shown_at")
    columns += ("response", "response_at", "value_unit", "label_kind", "label_value", "label_at", "label_ripe_at")
    frame = load_frame(extract, model=model, columns=columns)
    scored = frame[frame[_SCORE].notna() & frame["shadow_of"].isna() & frame["value_unit"].isna()]
    if scored.empty:
        raise NotForSeismometer(f"expected packets of {model} with a probability; see deployr monitor extract")
    observed = (scored["label_kind"] == "observed").fillna(value=False) & scored["label_value"].isin((0.0, 1.0))
    known = scored[observed & is_ripe(scored["label_ripe_at"], now=extracted_at(extract, scored))]
    if known.empty:
        raise NotForSeismometer(f"expected an outcome of yes or no among {model}'s packets; none is ripe yet")
    if folder.exists() and any(folder.iterdir()) and not (folder / "config.yml").is_file():
        raise FileExistsError(f"{folder}: expected an empty folder, or one that was written for seismometer before")
    (folder / "data").mkdir(parents=True, exist_ok=True)
    cohorts = {name: called for name, called in _COHORTS.items() if known[name].nunique() > 1}
    _predictions(known, cohorts).to_parquet(folder / "data" / "predictions.parquet", index=False)
    _events(known).to_parquet(folder / "data" / "events.parquet", index=False)
    in_force = known.loc[known["threshold"].between(0.0, 1.0, inclusive="neither")].sort_values(_TIME)["threshold"]
    thresholds = [float(each) for each in in_force.tail(1)]
    (folder / "data" / "metadata.json").write_text(
        json.dumps({"modelname": model, "thresholds": thresholds or [0.5]}, indent=1) + "\n", encoding="utf-8"
    )
    _write_yaml(folder / "data_dictionary.yml", _dictionary(cohorts))
    _write_yaml(folder / "usage_config.yml", {"data_usage": _usage(cohorts)})
    _write_yaml(folder / "config.yml", {"other_info": _CONFIG})
    return Written(predictions=len(known), left_out=len(scored) - len(known))


_CONFIG = {
    "usage_config": "usage_config.yml",
    "template": "binary",
    "info_dir": "outputs",
    "event_definition": "data_dictionary.yml",
    "prediction_definition": "data_dictionary.yml",
    "data_dir": "data",
    "event_path": "events.parquet",
    "prediction_path": "predictions.parquet",
    "metadata_path": "metadata.json",
}


def _predictions(known: pd.DataFrame, cohorts: Mapping[str, str]) -> pd.DataFrame:
    found = known[[_PACKET, _PATIENT, _TIME, _SCORE, *cohorts]].copy()
    found[_PATIENT] = _patients(known)
    found[_PACKET] = found[_PACKET].astype("int64")
    found[_TIME] = _in_utc(found[_TIME])
    for name in cohorts:
        words = found[name].astype(object)
        found[name] = words.where(words.notna(), "not known").astype("category")
    return found


def _events(known: pd.DataFrame) -> pd.DataFrame:
    """Give a row for each thing that happened to a packet, the first at the earliest."""
    always = pd.Series(data=True, index=known.index)
    answered = known["response"].isin(("accepted", "overridden", "acknowledged"))
    kinds = (
        # What did not happen has no instant of its own: it is known from when nothing more can count.
        (_LABEL, always, known["label_at"].fillna(known["label_ripe_at"]).fillna(known[_TIME]), known["label_value"]),
        (_SHOWN, known["shown_at"].notna(), known["shown_at"], 1.0),
        (_ACCEPTED, answered, known["response_at"], (known["response"] == "accepted").fillna(value=False)),
    )
    found = [
        pd.DataFrame(
            {
                _PATIENT: _patients(known),
                _PACKET: known[_PACKET].astype("int64"),
                "Type": kind,
                "EventTime": _in_utc(at),
                "Value": pd.Series(value, index=known.index).astype("float64"),
            }
        )[holds.astype(bool)]
        for kind, holds, at, value in kinds
    ]
    return pd.concat(found).sort_values(["EventTime", _PACKET], kind="stable").reset_index(drop=True)


def _patients(known: pd.DataFrame) -> pd.Series:
    """Give whom each packet is about; one whose patient is not known counts as somebody of its own."""
    return known[_PATIENT].fillna(-1 - known[_PACKET]).astype("int64")


def _in_utc(instants: pd.Series) -> pd.Series:
    return instants.dt.tz_convert("UTC").dt.tz_localize(None).astype("datetime64[ns]")


def _dictionary(cohorts: Mapping[str, str]) -> dict[str, object]:
    meanings = {each.name: each.meaning for each in PACKETS}
    kinds = {_PACKET: "int64", _PATIENT: "int64", _TIME: "datetime64[ns]", _SCORE: "float64"}
    return {
        "predictions": [
            {"name": name, "dtype": kinds.get(name, "category"), "definition": meanings[name]}
            for name in (*kinds, *cohorts)
        ],
        "events": [
            {"name": kind, "display_name": called, "dtype": "float64", "definition": meaning}
            for kind, (called, _, meaning) in _EVENTS.items()
        ],
    }


def _usage(cohorts: Mapping[str, str]) -> dict[str, object]:
    return {
        "entity_id": _PATIENT,
        "context_id": _PACKET,
        "primary_output": _SCORE,
        "primary_target": _EVENTS[_LABEL][0],
        "predict_time": _TIME,
        "cohorts": [{"source": name, "display_name": called.capitalize()} for name, called in cohorts.items()],
        "event_table": {"type": "Type", "time": "EventTime", "value": "Value"},
        "events": [
            {"source": kind, "display_name": called, "usage": use, "merge_strategy": "first"}
            for kind, (called, use, _) in _EVENTS.items()
        ],
        "censor_min_count": max(FEWEST_PATIENTS, _LEAST_CENSORED),
    }


def _write_yaml(file: Path, content: object) -> None:
    file.write_text(yaml.safe_dump(content, sort_keys=False, allow_unicode=True), encoding="utf-8")
