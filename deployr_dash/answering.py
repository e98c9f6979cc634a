"""Which bundles answered lately, where, and which runs followed as shadows: by the extract, whatever anybody meant."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from pathlib import Path

from deployr_dash.loading import load_frame

LATELY = timedelta(days=7)
_COLUMNS = ("model_id", "bundle_sha256", "version", "site", "environment", "shadow_of", "received_at")


@dataclass(frozen=True, kw_only=True, slots=True)
class Answering:
    """One bundle that was asked lately. ``name``: the model, of a shadow its run. ``last``: its newest packet."""

    name: str
    bundle_sha256: str
    version: str
    site: str
    environment: str
    is_shadow: bool
    packets: int
    last: datetime

    @property
    def where(self) -> str:
        """Say where it answers: ``main, staging``."""
        return ", ".join(each for each in (self.site, self.environment) if each)


def answering(folder: Path, *, until: datetime) -> Sequence[Answering]:
    """Give what was asked in the week up to ``until``, the newest first; calls that no bundle answered do not count.

    Raises:
        ExtractMissing: there is no extract.
    """
    frame = load_frame(folder, since=until - LATELY, columns=_COLUMNS)
    frame = frame.astype(dict.fromkeys(_COLUMNS[:5], "string")).fillna(dict.fromkeys(_COLUMNS[:5], ""))
    frame["is_shadow"] = frame["shadow_of"].notna()
    frame = frame[frame["bundle_sha256"] != ""]
    found = [
        Answering(
            name=key[0],
            bundle_sha256=key[1],
            version=key[2],
            site=key[3],
            environment=key[4],
            is_shadow=bool(key[5]),
            packets=len(rows),
            last=rows["received_at"].max().to_pydatetime(),
        )
        for key, rows in frame.groupby([*_COLUMNS[:5], "is_shadow"], sort=False)
    ]
    return sorted(found, key=lambda each: each.last, reverse=True)


def followed(lately: Sequence[Answering]) -> Counter[str]:
    """Count the packets of each shadow, by its run, wherever it followed; in the order in which they come first."""
    found: Counter[str] = Counter()
    for each in lately:
        if each.is_shadow:
            found[each.name] += each.packets
    return found
