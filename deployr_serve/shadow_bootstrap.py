"""Puts the shadows together: runs on the shelf that deployment files name, behind their champions."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from pathlib import Path

from deployr_core.elsewhere import Reach
from deployr_core.features import FeatureSpec
from deployr_serve.adapters.shadow_bundles import ShadowBundles
from deployr_serve.core.errors import SettingsInvalid
from deployr_serve.core.infer import Services
from deployr_serve.core.shadow import Needs, Shadows


def shadowed(
    services: Services,
    *,
    runs: Path | None,
    trusted_keys: Sequence[bytes],
    allow_pickle: bool,
    unfetchable: Callable[[FeatureSpec], tuple[str, ...]],
    refused: Callable[[Mapping[str, Path]], Mapping[str, str]],
    needs: Needs,
    reach: Reach | None = None,
) -> Services:
    """Give the services with shadows behind their champions, where a deployment file names any.

    Args:
        services: without.
        runs: the shelf; None where the site has none.
        trusted_keys: as for champions; as for the next three.
        allow_pickle: see `ShadowBundles`.
        unfetchable: see there.
        refused: see there.
        needs: what is asked of the EMR for a declaration, search by search.
        reach: the way to models that answer elsewhere; None where the site names none.

    Raises:
        SettingsInvalid: a deployment file names what is no run on the shelf.
    """
    wanted = {model: policy.shadows for model, policy in services.policies.declared.items() if policy.shadows}
    if not wanted:
        return services
    if runs is None:
        raise SettingsInvalid("deployments: shadows: expected DEPLOYR_BUNDLE_ARCHIVE, the folder that runs are kept in")
    problems = [
        f"{model}: shadows: expected a run in {runs / model}, got {run}"
        for model, ids in sorted(wanted.items())
        for run in ids
        if not (runs / model / run).is_dir()
    ]
    if problems:
        raise SettingsInvalid("deployments: " + "; ".join(problems))
    models = ShadowBundles(
        runs,
        wanted,
        trusted_keys=trusted_keys,
        allow_pickle=allow_pickle,
        unfetchable=unfetchable,
        refused=refused,
        reach=reach,
    )
    return replace(services, shadows=Shadows(services, models=models, needs=needs))
