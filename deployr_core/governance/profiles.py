"""Every paper that can be written."""

from __future__ import annotations

from collections.abc import Mapping

from deployr_core.governance.chai import CHAI
from deployr_core.governance.hti1 import HTI1
from deployr_core.governance.minimar import MINIMAR
from deployr_core.governance.profile import Profile
from deployr_core.governance.tripod_ai import TRIPOD_AI

PROFILES: Mapping[str, Profile] = {each.name: each for each in (CHAI, MINIMAR, TRIPOD_AI, HTI1)}
USUAL = (CHAI.name, MINIMAR.name, TRIPOD_AI.name)
"""Written where nobody chooses; the source attributes of HTI-1 are for sites that the rule is of use to."""
