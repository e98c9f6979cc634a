"""Puts together the ways to models that answer elsewhere."""

from __future__ import annotations

import ssl

from deployr_core.elsewhere import Reach
from deployr_serve.core.errors import SettingsInvalid
from deployr_serve.core.ports import Clock
from deployr_serve.predictor_settings import PredictorSettings


def reach_of(settings: PredictorSettings, *, clock: Clock) -> Reach | None:
    """Give the ways to the predictors that the site names; None where it names none.

    Raises:
        SettingsInvalid: the authority's file holds no certificates.
    """
    if not settings.urls:
        return None
    # Most sites serve what their bundles hold.
    from deployr_serve.adapters.predictors import Address, Predictors

    addresses = {name: Address(url=url, token=settings.tokens.get(name)) for name, url in settings.urls.items()}
    try:
        predictors = Predictors(
            addresses,
            clock=clock,
            timeout_s=settings.timeout_s,
            version_header=settings.version_header,
            ca_file=settings.ca_file,
        )
    except (OSError, ssl.SSLError):
        raise SettingsInvalid("settings: DEPLOYR_PREDICTOR_CA_FILE: expected certificates in PEM") from None
    return predictors.reach
