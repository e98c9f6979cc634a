"""How a site takes bundles: whose signature it trusts, how they are tried out, what of a declaration it can fetch."""

from __future__ import annotations

from collections.abc import Callable, Hashable
from dataclasses import dataclass
from datetime import UTC, datetime
from functools import lru_cache
from typing import TYPE_CHECKING

from deployr_core.features import FeatureSpec
from deployr_serve.adapters.fhir_plan import plan, unfetchable
from deployr_serve.adapters.proving import Prover
from deployr_serve.core.errors import SettingsInvalid
from deployr_serve.settings import Settings

if TYPE_CHECKING:
    from deployr_serve.adapters.run_shelf import RunShelf

_ANY_INSTANT = datetime(2000, 1, 1, tzinfo=UTC)


@dataclass(frozen=True, kw_only=True, slots=True)
class Taking:
    """What every bundle has to pass here, be it a champion's, a shadow's or one that is to be deployed.

    ``trusted_keys``: public Ed25519 keys, PEM; without any, a signature is not asked for. ``prover`` tries bundles out.
    ``unfetchable`` names what of a declaration cannot be fetched here.
    """

    trusted_keys: tuple[bytes, ...]
    allow_pickle: bool
    prover: Prover
    unfetchable: Callable[[FeatureSpec], tuple[str, ...]]


def taking_of(settings: Settings) -> Taking:
    """Give how the site of these settings takes bundles; files of keys are read here.

    Raises:
        SettingsInvalid: the site's file of vendor codes is not what it must be.
    """
    trusted_keys = tuple(file.read_bytes() for file in settings.trusted_keys)
    return Taking(
        trusted_keys=trusted_keys,
        allow_pickle=settings.allow_pickle,
        prover=Prover(settings.model_proofs, allow_pickle=settings.allow_pickle, trusted_keys=trusted_keys),
        unfetchable=_unfetchable(settings),
    )


def shelf_of(settings: Settings) -> RunShelf:
    """Give the shelf of runs, and of the folder that models are served from.

    Raises:
        SettingsInvalid: the site has no place for runs.
    """
    # Only where there is somebody who may ask for it.
    from deployr_serve.adapters.run_shelf import RunShelf

    if settings.bundle_archive is None:
        raise SettingsInvalid("settings: DEPLOYR_BUNDLE_ARCHIVE: expected the folder that runs are kept in")
    taking = taking_of(settings)
    return RunShelf(
        settings.bundle_archive,
        bundles=settings.bundles,
        trusted_keys=taking.trusted_keys,
        refused=taking.prover.refused,
        allow_pickle=taking.allow_pickle,
        unfetchable=taking.unfetchable,
        needs=needs,
    )


@lru_cache(maxsize=64)
def needs(spec: FeatureSpec) -> tuple[tuple[str, Hashable], ...]:
    """Give what is asked of the EMR for a declaration, search by search, to hold two declarations against each other.

    About whom and when makes no difference then.
    """
    return tuple(plan(spec, patient_id="any", as_of=_ANY_INSTANT).items())


def _unfetchable(settings: Settings) -> Callable[[FeatureSpec], tuple[str, ...]]:
    if not settings.vendor.reads:
        return unfetchable
    # All that speaks HTTP comes with it, and a rollback at the command line is in a hurry.
    from deployr_serve.vendor_bootstrap import epic_site

    site = epic_site(settings.vendor, zone=settings.zone)
    return lambda spec: (*unfetchable(spec), *site.unreadable(spec))
