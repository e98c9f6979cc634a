"""The names of everything that a paper may ask, and what to do where one is not known."""

from __future__ import annotations

from collections.abc import Mapping

from deployr_core.governance.statements import CARD_FILE, QUESTIONS

_BY_RUN = "make the papers from a run: run.json and its bundle"
_BY_REPORT = "put the run's report.json beside its run.json; of another target than one outcome there is none"
_BY_EXTRACT = "run deployr monitor extract, and make the papers with --extract, when there are ripe labels"

KNOWN_HOW: Mapping[str, str] = {
    "model": _BY_RUN,
    "version": _BY_RUN,
    "output": _BY_RUN,
    "output_kind": _BY_RUN,
    "outcome": _BY_RUN,
    "index_time": _BY_RUN,
    "estimator": _BY_RUN,
    "parameters": _BY_RUN,
    "features": _BY_RUN,
    "demographics_used": _BY_RUN,
    "absent_data": _BY_RUN,
    "requirements": _BY_RUN,
    "data_source": _BY_RUN,
    "training_set": _BY_RUN,
    "test_set": _BY_RUN,
    "splits": _BY_RUN,
    "dates": _BY_RUN,
    "software": _BY_RUN,
    "digests": _BY_RUN,
    "held_out_validity": "the run's record has no figure of the held-out rows: train it again",
    "held_out_fairness": _BY_REPORT,
    "held_out_groups": _BY_REPORT,
    "local_validity": _BY_EXTRACT,
    "local_fairness": _BY_EXTRACT,
    "local_service": _BY_EXTRACT,
}
"""What is worked out and asked for, by name: how it comes to be known."""


def how_to_know(name: str) -> str:
    """Say what to do about a fact that is missing.

    Raises:
        KeyError: nobody knows such a fact.
    """
    if name in QUESTIONS:
        return f"{QUESTIONS[name]} ({CARD_FILE}: {name})"
    return f"{name.replace('_', ' ').capitalize()}: {KNOWN_HOW[name]}"
