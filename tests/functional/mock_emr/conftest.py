"""A mock EMR that listens on loopback, over a chart small enough to read."""

from __future__ import annotations

import json
from collections.abc import AsyncIterator, Callable
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import aiohttp
import jwt
import msgspec
import pytest
from cryptography.hazmat.primitives.asymmetric import rsa
from jwt.algorithms import RSAAlgorithm

from mock_emr.assertion import keys_in
from mock_emr.clock import EmrClock
from mock_emr.hosting import listening
from mock_emr.serve import create_app
from mock_emr.store import Loaded, Store
from mock_emr.vendor_site import VendorSite

REAL_NOW = datetime(2026, 11, 21, 9, tzinfo=UTC)
EMR_NOW = datetime(2015, 1, 6, 12, tzinfo=UTC)
CLIENT_KEY = rsa.generate_private_key(public_exponent=65537, key_size=2048)


def _observation(patient: str, number: int) -> dict[str, Any]:
    return {
        "resourceType": "Observation",
        "id": f"{patient}-l{number}",
        "status": "final",
        "category": [{"coding": [{"code": "laboratory"}]}],
        "code": {"coding": [{"system": "http://loinc.org", "code": "2160-0"}]},
        "subject": {"reference": f"Patient/{patient}"},
        "effectiveDateTime": f"2015-01-06T11:{number:02}:00Z",
        "basedOn": [{"reference": f"ServiceRequest/{patient}-o"}],
        "valueQuantity": {"value": 1.5},
    }


def _chart() -> list[dict[str, Any]]:
    """Two patients, each with an open stay, an order and seven results known from 11:00 on, a minute apart."""
    resources: list[dict[str, Any]] = []
    for patient in ("p1", "p2"):
        subject = {"subject": {"reference": f"Patient/{patient}"}}
        csn = {"type": {"text": "CSN"}, "system": "urn:site", "value": {"p1": "42", "p2": "43"}[patient]}
        resources += [
            {
                "resourceType": "Patient",
                "id": patient,
                "identifier": [{"system": "urn:mrn", "value": f"MRN-{patient}"}],
            },
            {
                "resourceType": "Encounter",
                "id": f"{patient}-e",
                "status": "finished",
                "identifier": [csn],
                "period": {"start": "2015-01-06T10:00:00Z", "end": "2015-01-07T10:00:00Z"},
                **subject,
            },
            {
                "resourceType": "ServiceRequest",
                "id": f"{patient}-o",
                "status": "completed",
                "intent": "order",
                "encounter": {"reference": f"Encounter/{patient}-e"},
                "authoredOn": "2015-01-06T10:30:00Z",
                **subject,
            },
            *(_observation(patient, number) for number in range(7)),
        ]
    return resources


class Sleeps(list[float]):
    """Remembers how long it was asked to wait, and does not."""

    async def __call__(self, seconds: float) -> None:
        self.append(seconds)


@dataclass(frozen=True, kw_only=True)
class Reply:
    """What came back."""

    status: int
    headers: dict[str, str]
    body: bytes

    def json(self) -> Any:
        """Give the body decoded."""
        return json.loads(self.body)


@dataclass(frozen=True, kw_only=True)
class Caller:
    """Talks to one running EMR; `seconds` is its monotonic clock, which the test turns."""

    session: aiohttp.ClientSession
    url: str
    clock: EmrClock
    seconds: list[float]
    sleeps: Sleeps

    async def call(self, method: str, path: str, **options: Any) -> Reply:
        """Send a request to a path of the EMR, or to an absolute URL."""
        url = path if path.startswith("http") else self.url + path
        async with self.session.request(method, url, **options) as response:
            headers = {name.lower(): value for name, value in response.headers.items()}
            return Reply(status=response.status, headers=headers, body=await response.read())

    async def get(self, path: str, **options: Any) -> Reply:
        """Read a path."""
        return await self.call("GET", path, **options)

    async def fhir(self, path: str, **options: Any) -> Any:
        """Read a path under the FHIR root that must be answered, decoded."""
        reply = await self.get("/api/FHIR/R4/" + path, **options)
        assert reply.status == 200, reply.body
        assert reply.headers["content-type"] == "application/fhir+json"
        return reply.json()

    def assertion(self, **claims: Any) -> str:
        """Sign an assertion of the registered client `bridge`."""
        now = int(REAL_NOW.timestamp())
        held = {"iss": "bridge", "sub": "bridge", "aud": f"{self.url}/oauth2/token", "exp": now + 60, "jti": "1"}
        return jwt.encode({**held, **claims}, CLIENT_KEY, algorithm="RS384", headers={"kid": "k"})

    async def token(self, **form: str | None) -> Reply:
        """Ask for an access token; a member that is None is left out of the form."""
        held: dict[str, str | None] = {
            "grant_type": "client_credentials",
            "client_assertion_type": "urn:ietf:params:oauth:client-assertion-type:jwt-bearer",
            "client_assertion": self.assertion(),
            **form,
        }
        sent = {name: value for name, value in held.items() if value is not None}
        return await self.call("POST", "/oauth2/token", data=sent)


Running = Callable[..., AbstractAsyncContextManager[Caller]]


@pytest.fixture
def running() -> Running:
    """Give a function that runs an EMR over the small chart, open to all unless told otherwise."""

    @asynccontextmanager
    async def run(
        *, open_access: bool = True, delay_s: float = 0.0, knows_its_address: bool = True
    ) -> AsyncIterator[Caller]:
        public = {**RSAAlgorithm.to_jwk(CLIENT_KEY.public_key(), as_dict=True), "kid": "k"}
        clock = EmrClock(real_now=lambda: REAL_NOW, now=EMR_NOW)
        seconds, sleeps = [0.0], Sleeps()
        loaded = (Loaded(resource=one, raw=msgspec.json.encode(one), source="test") for one in _chart())
        store = Store(loaded)

        def make(url: str) -> Any:
            return create_app(
                store,
                clock=clock,
                users={"bridge": "a:secret"},
                clients={"bridge": keys_in(json.dumps({"keys": [public]}).encode())},
                open_access=open_access,
                delay_s=delay_s,
                base_url=url if knows_its_address else None,
                monotonic=lambda: seconds[0],
                sleep=sleeps,
            )

        async with listening(make) as url, aiohttp.ClientSession() as session:
            yield Caller(session=session, url=url, clock=clock, seconds=seconds, sleeps=sleeps)

    return run


@pytest.fixture
def running_over() -> Running:
    """Give a function that runs an open EMR, at noon of 6 January 2015, over these resources."""

    @asynccontextmanager
    async def run(*resources: dict[str, Any], vendor_site: VendorSite | None = None) -> AsyncIterator[Caller]:
        clock = EmrClock(real_now=lambda: REAL_NOW, now=EMR_NOW)
        store = Store(Loaded(resource=one, raw=msgspec.json.encode(one), source="test") for one in resources)

        def make(url: str) -> Any:
            return create_app(store, clock=clock, open_access=True, base_url=url, vendor_site=vendor_site)

        async with listening(make) as url, aiohttp.ClientSession() as session:
            yield Caller(session=session, url=url, clock=clock, seconds=[0.0], sleeps=Sleeps())

    return run


@pytest.fixture
async def emr(running: Running) -> AsyncIterator[Caller]:
    """Give a caller of an open EMR at noon of 6 January 2015."""
    async with running() as caller:
        yield caller


@pytest.fixture
async def closed_emr(running: Running) -> AsyncIterator[Caller]:
    """Give a caller, without a token yet, of an EMR that asks for one."""
    async with running(open_access=False) as caller:
        yield caller


@pytest.fixture(scope="session")
def eicu_folder() -> Path:
    """Give the folder of the eICU demo's FHIR resources; skip where it is not."""
    folder = Path(__file__).parents[3].parent / "shared" / "data" / "eicu-demo-paired" / "fhir"
    if not folder.is_dir():
        pytest.skip("the eICU demo extract is not beside the work tree")
    return folder
