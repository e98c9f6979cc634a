"""Builders and hand-written fakes that the tests of the serving side share.

Time stands at `NOW` in an odd zone, and the one model is small enough to be scored in the head: without a hematocrit
result in the window it gives 1 / 4, with at least one 3 / 4.
"""

from __future__ import annotations

import asyncio
import os
from collections.abc import Mapping
from datetime import UTC, datetime, timedelta, timezone
from types import SimpleNamespace

import msgspec
import numpy as np
import pytest
from hypothesis import HealthCheck, settings

from deployr_core import bundle as bundles
from deployr_core import model_format
from deployr_core.codes import ICD10CM, LOINC, RXNORM, Code
from deployr_core.declared import Analyte, FixedCodes, Statistic
from deployr_core.facts import Demographics, DiagnosisList, Encounter, Lab, PatientFacts, Sex
from deployr_core.features import DiagnosisGroup, FeatureSpec, LabGroup, MedicationGroup, SexGroup
from deployr_core.label_rules import LabComponent
from deployr_core.layout import layout_of
from deployr_core.outputs import BINARY
from deployr_core.packet import (
    Delivery,
    DeliveryState,
    InferencePacket,
    ModelRef,
    Received,
    Scored,
    StoredVector,
    Subject,
    Trigger,
)
from deployr_serve.adapters.memory_store import MemoryStore
from deployr_serve.adapters.threads import DaemonThreads
from deployr_serve.core.audit import NotAudited
from deployr_serve.core.errors import UnknownModel
from deployr_serve.core.infer import Services, Site
from deployr_serve.core.policy import Policies
from deployr_serve.core.ports import FetchedFacts
from deployr_serve.core.request import InferenceRequest
from deployr_serve.core.switches import Switches
from tests.emulators.fixtures import (  # noqa: F401 fixtures for all tests
    azurite,
    cosmos_address,
    cosmos_of,
    each_store,
    new_database,
)

# Every core has a test process: a second thread of OpenMP's would wait for one in a busy loop, and fitting one model of
# histogram boosting then took up to eight seconds of processor time in place of a fifth of one.
os.environ.setdefault("OMP_NUM_THREADS", "1")

# No test asserts how long something takes: the machine may be doing other things.
settings.register_profile("unhurried", deadline=None, suppress_health_check=[HealthCheck.too_slow])
settings.load_profile("unhurried")

HEMATOCRIT = "4544-3"
# Nepal's offset: no whole or half hour, so that a mistaken zone cannot cancel out.
NOW = datetime(2015, 1, 7, 2, 40, tzinfo=timezone(timedelta(hours=5, minutes=45))).astimezone(UTC)


@pytest.fixture
def now():
    """Give the instant at which the tests' clocks stand: 2015-01-06T20:55:00Z."""
    return NOW


class FakeClock:
    """Stands still until told to pass time; sleeping passes it at once, and lets others work."""

    def __init__(self, now: datetime = NOW) -> None:
        self._now = now
        self._monotonic = 1000.0

    def now(self) -> datetime:
        return self._now

    def monotonic(self) -> float:
        return self._monotonic

    async def sleep(self, seconds: float) -> None:
        self.pass_time(seconds)
        await asyncio.sleep(0)

    def pass_time(self, seconds: float) -> None:
        self._now += timedelta(seconds=seconds)
        self._monotonic += seconds


@pytest.fixture
def clock():
    return FakeClock()


class FakeSource:
    """Answers each request with what is next in ``answers``, the last one for ever; an exception is raised."""

    def __init__(self, *answers: object) -> None:
        self._answers = list(answers)
        self.asked: list[Subject] = []

    async def fetch(self, subject, spec, *, as_of, budget=None, handed=None):
        self.asked.append(subject)
        answer = self._answers.pop(0) if len(self._answers) > 1 else self._answers[0]
        # Long enough for everybody else who asks at the same time to have asked.
        for _ in range(5):
            await asyncio.sleep(0)
        if isinstance(answer, BaseException):
            raise answer
        if callable(answer):
            return await answer()
        return answer


@pytest.fixture
def source_of():
    return FakeSource


class RecordingOutput:
    """Holds what reached it, one score per ``delivery_id``, as the EMR does; ``fails_with`` is raised in turn."""

    name = "score-column"

    def __init__(self, *fails_with: BaseException | None, store=None) -> None:
        self._fails_with = list(fails_with)
        self._store = store
        self.sent: list[str] = []
        self.scores: dict[str, float] = {}
        self.stored_when_sent: list[object] = []

    async def send(self, packet, bundle, *, delivery_id, budget=None):
        self.sent.append(delivery_id)
        if self._store is not None:
            self.stored_when_sent.append(
                (await self._store.read(packet.packet_id), await self._store.read_delivery(delivery_id))
            )
        failure = self._fails_with.pop(0) if self._fails_with else None
        if failure is not None:
            raise failure
        self.scores[delivery_id] = packet.outcome.score


@pytest.fixture
def output_of():
    return RecordingOutput


class FakeModels:
    """The models by id; an exception instead of a bundle is why that one is not available."""

    def __init__(self, **models: object) -> None:
        self._models = {model_id.replace("_", "-"): model for model_id, model in models.items()}

    def bundle(self, model_id):
        model = self._models.get(model_id, UnknownModel("expected the id of a model that is deployed here"))
        if isinstance(model, BaseException):
            raise model
        return model

    def deployed(self) -> Mapping[str, str | None]:
        return {
            model_id: str(model) if isinstance(model, BaseException) else None
            for model_id, model in self._models.items()
        }


@pytest.fixture
def models_of():
    return FakeModels


@pytest.fixture(scope="session")
def feature_spec():
    """Give a declaration with one group of each kind that needs a search, looking back 30, 365 and 90 days."""
    hematocrit = Analyte(system=LOINC, code=HEMATOCRIT, name="hematocrit", unit="%")
    return FeatureSpec(
        schema_version=1,
        groups=(
            SexGroup(),
            LabGroup(
                name="labs",
                analytes=(hematocrit,),
                statistics=(Statistic.COUNT, Statistic.LAST),
                lookback_days=30,
            ),
            DiagnosisGroup(
                name="problem_list",
                recorded_in=(DiagnosisList.PROBLEM_LIST,),
                systems=(ICD10CM,),
                codes=FixedCodes(codes=(Code(ICD10CM, "D50.9"),)),
                lookback_days=365,
            ),
            MedicationGroup(
                name="drugs", systems=(RXNORM,), codes=FixedCodes(codes=(Code(RXNORM, "310325"),)), lookback_days=90
            ),
        ),
    )


@pytest.fixture(scope="session")
def bundle_files(feature_spec):
    """Give a bundle's files by name; of 4 training rows each, 1 without a result is positive, and 3 with one are."""
    import treelite
    from sklearn.ensemble import RandomForestClassifier

    names = layout_of(feature_spec).names
    column = names.index(f"labs/{HEMATOCRIT}/count")
    rows = np.zeros((8, len(names)))
    rows[4:, column] = 1.0
    forest = RandomForestClassifier(n_estimators=1, bootstrap=False, max_features=None, random_state=0)
    forest.fit(rows, [0, 0, 0, 1, 0, 1, 1, 1])
    parts = {
        bundles.FEATURES_FILE: feature_spec.to_json(),
        model_format.MODEL_FILE: treelite.sklearn.import_model(forest).serialize_bytes(),
        bundles.GOLDEN_FILE: msgspec.json.encode(
            (
                bundles.GoldenVector(indices=(), values=(), outputs=(1 / 4,)),
                bundles.GoldenVector(indices=(column,), values=(1.0,), outputs=(3 / 4,)),
            )
        ),
    }
    manifest = bundles.Manifest(
        schema_version=bundles.SCHEMA_VERSION,
        model_id="hematocrit",
        version="1.0.0",
        task=bundles.Task(
            name="hematocrit",
            unit="order",
            index_time="order signed",
            label="outside its reference range",
            rule=LabComponent(components=(HEMATOCRIT,), window_hours=24),
            panels=("57021-8",),
            outputs=BINARY,
        ),
        score_name="HCT",
        n_features=len(names),
        spec_sha256=feature_spec.digest(),
        parts={name: bundles.describe_part(content) for name, content in parts.items()},
        training=bundles.Training(
            estimator="RandomForestClassifier",
            parameters={"n_estimators": 1},
            rows=8,
            patients=8,
            label_means={"positive": 0.5},
            snapshot_sha256="0" * 64,
            library_versions={"treelite": treelite.__version__},
        ),
        evaluation=bundles.Evaluation(
            rows=8,
            patients=8,
            label_means={"positive": 0.5},
            figures={"auroc": bundles.Estimate(value=0.75, low=0.5, high=1.0)},
        ),
    )
    return {bundles.MANIFEST_FILE: manifest.to_json(), **parts}


@pytest.fixture(scope="session")
def bundle(bundle_files):
    parts = {name: content for name, content in bundle_files.items() if name != bundles.MANIFEST_FILE}
    return bundles.open_bundle(bundle_files[bundles.MANIFEST_FILE], parts)


@pytest.fixture
def lab_of():
    """Give a function that makes a hematocrit result of 30 %, drawn 2 h and released 1 h before `now`."""

    def make(fact_id="lab1", **changes):
        fields = {
            "codes": (Code(LOINC, HEMATOCRIT),),
            "at": NOW - timedelta(hours=2),
            "known_at": NOW - timedelta(hours=1),
            "value": 30.0,
            "unit": "%",
            **changes,
        }
        return Lab(fact_id=fact_id, **fields)

    return make


@pytest.fixture
def fetched_of(lab_of):
    """Give a function that makes what the EMR gave: a woman with one hematocrit result, in encounter e1 of CSN 42."""

    def make(*labs, patient_id="p1", csn="42"):
        return FetchedFacts(
            facts=PatientFacts(
                patient_id=patient_id, demographics=Demographics(birth_date=None, sex=Sex.FEMALE), labs=labs
            ),
            encounter=Encounter(encounter_id="e1", start=None, end=None, contact_serial_number=csn),
            fetches=(),
            dropped={"labs.status_not_final": 2},
        )

    return make


@pytest.fixture
def request_of():
    """Give a function that makes a request about order o1 of patient p1, signed at `now`."""

    def make(*, model_id="hematocrit", patient_id="p1", event_time=NOW, idempotency_key=None, order_id="o1"):
        return InferenceRequest(
            channel="json",
            model_id=model_id,
            subject=Subject(patient_id=patient_id, encounter_id="e1", order_id=order_id),
            event_time=event_time,
            idempotency_key=idempotency_key,
            correlation_id="correlation-1",
        )

    return make


@pytest.fixture
def services_of(clock, bundle, fetched_of, lab_of):
    """Give a function that makes services; what is not named answers well: 3 / 4 for everybody, kept in memory."""

    def make(
        *,
        store=None,
        source=None,
        models=None,
        outputs=None,
        deadline_s=8.0,
        clock=clock,
        policies=(),
        records=None,
        audit=None,
    ):
        store = MemoryStore() if store is None else store
        records = store if records is None else records
        in_force = Policies(declared={policy.model: policy for policy in policies})
        return Services(
            site=Site(name="test", environment="TEST", id_key=b"0123456789abcdef", deadline_s=deadline_s),
            clock=clock,
            store=store,
            records=records,
            source=FakeSource(fetched_of(lab_of())) if source is None else source,
            models=FakeModels(hematocrit=bundle) if models is None else models,
            threads=DaemonThreads(),
            outputs=(RecordingOutput(),) if outputs is None else outputs,
            policies=in_force,
            switches=Switches(records, clock=clock, site="test", policies=in_force),
            audit=NotAudited() if audit is None else audit,
        )

    return make


@pytest.fixture
def packet_of():
    """Give a function that makes a packet of the hematocrit model, scored 3 / 4 at `now` unless told otherwise."""

    def make(packet_id="p01", *, outcome=None, model_id="hematocrit", patient_id="p1", order_id="o1", **changes):
        scored = Scored(
            score=3 / 4,
            vector=StoredVector(spec_sha256="5" * 64, size=6, indices=(0, 2), values=(1.0, 1.0)),
            coverage={"labs.results": 1},
            entity_id="42",
        )
        fields = {
            "site": "test",
            "environment": "TEST",
            "model": ModelRef(model_id=model_id, version="1.0.0", bundle_sha256="b" * 64),
            "trigger": Trigger(
                channel="json",
                correlation_id="correlation-1",
                request_sha256="a" * 64,
                received_at=NOW,
                event_time=NOW,
            ),
            "subject": Subject(patient_id=patient_id, encounter_id="e1", order_id=order_id),
            "as_of": NOW,
            "outcome": outcome or scored,
            "started_at": NOW,
            "updated_at": NOW,
            **changes,
        }
        return InferencePacket(packet_id=packet_id, **fields)

    return make


@pytest.fixture
def received(now):
    """Give the outcome of a packet that is being worked on, with 16 s to go."""
    return Received(lease_until=now + timedelta(seconds=16))


@pytest.fixture
def delivery_of():
    """Give a function that makes a delivery of packet p01 that waits to be sent since `now`."""

    def make(packet_id="p01", *, output="score-column", state=DeliveryState.PENDING, created_at=NOW, **changes):
        return Delivery(
            delivery_id=f"{packet_id}.{output}",
            packet_id=packet_id,
            output=output,
            state=state,
            created_at=created_at,
            updated_at=created_at,
            **changes,
        )

    return make


@pytest.fixture
def reply_of():
    """Give a function that makes a raw HTTP/1.1 answer, for servers that answer on a bare socket."""

    def make(body=b"", *, status="200 OK", content_type="application/fhir+json", headers=()):
        lines = [
            f"HTTP/1.1 {status}",
            f"Content-Type: {content_type}",
            f"Content-Length: {len(body)}",
            "Connection: close",
            *headers,
        ]
        return "\r\n".join(lines).encode() + b"\r\n\r\n" + body

    return make


@pytest.fixture
async def server_of():
    """Give a function that starts a loopback server answering every connection with ``answer(head, writer)``."""
    servers, connections = [], set()

    async def start(answer):
        seen = SimpleNamespace(heads=[], bodies=[])

        async def serve(reader, writer):
            connections.add(asyncio.current_task())
            try:
                head = await reader.readuntil(b"\r\n\r\n")
                seen.heads.append(head)
                size = next(
                    (int(line.split(b":")[1]) for line in head.split(b"\r\n") if line.lower().startswith(b"content-l")),
                    0,
                )
                seen.bodies.append(await reader.readexactly(size))
                await answer(head, writer)
                await writer.drain()
            except (ConnectionError, asyncio.IncompleteReadError, asyncio.CancelledError):
                pass  # The client has gone, or the test is over.
            finally:
                writer.close()

        server = await asyncio.start_server(serve, "127.0.0.1", 0)
        servers.append(server)
        port = server.sockets[0].getsockname()[1]
        return SimpleNamespace(url=f"http://127.0.0.1:{port}", seen=seen)

    yield start
    for server in servers:
        server.close()
    for task in connections:
        task.cancel()
    await asyncio.gather(*connections, return_exceptions=True)
    for server in servers:
        await server.wait_closed()


# -- the whole app against a mock EMR on loopback


def _about(patient_id: str, encounter_id: str, order_id: str, csn: str, lab_id: str, *, value: float, birth: str):
    subject = {"reference": f"Patient/{patient_id}"}
    return [
        {"resourceType": "Patient", "id": patient_id, "gender": "female", "birthDate": birth},
        {
            "resourceType": "Encounter",
            "id": encounter_id,
            "status": "in-progress",
            "class": {"code": "IMP"},
            "subject": subject,
            "identifier": [{"type": {"text": "CSN"}, "value": csn}],
            "period": {"start": "2015-01-06T10:00:00Z"},
        },
        {
            "resourceType": "ServiceRequest",
            "id": order_id,
            "status": "completed",
            "intent": "order",
            "code": {"coding": [{"system": LOINC, "code": "57021-8"}]},
            "subject": subject,
            "encounter": {"reference": f"Encounter/{encounter_id}"},
            "authoredOn": "2015-01-06T20:55:00Z",
        },
        *(
            {
                "resourceType": "Observation",
                "id": f"{lab_id}{suffix}",
                "status": "final",
                "category": [{"coding": [{"code": "laboratory"}]}],
                "code": {"coding": [{"system": LOINC, "code": HEMATOCRIT}]},
                "subject": subject,
                "effectiveDateTime": taken,
                "issued": released,
                "valueQuantity": {"value": value, "unit": "%"},
                "referenceRange": [{"low": {"value": 35, "unit": "%"}, "high": {"value": 47, "unit": "%"}}],
                **links,
            }
            for suffix, taken, released, links in (
                ("-before", "2015-01-06T18:00:00Z", "2015-01-06T19:00:00Z", {}),
                (
                    "-after",
                    "2015-01-06T21:30:00Z",
                    "2015-01-06T22:30:00Z",
                    {"basedOn": [{"reference": f"ServiceRequest/{order_id}"}]},
                ),
            )
        ),
    ]


@pytest.fixture
def chart_of():
    """Give a function that makes a patient's chart: in an encounter, an order at `now`, a result before and after."""
    return _about


@pytest.fixture
async def emr_of(tmp_path):
    """Give a function that starts a mock EMR over these resources, which stands at `now` and needs no token."""
    from contextlib import AsyncExitStack

    from mock_emr.clock import EmrClock
    from mock_emr.hosting import listening
    from mock_emr.serve import create_app, real_now

    released = asyncio.Event()

    async def sleep(seconds):
        # A delay ends with the test, so that nobody waits for it.
        await asyncio.wait((asyncio.create_task(released.wait()),), timeout=seconds)

    async with AsyncExitStack() as stack:

        async def start(*resources, clients=None, vendor_site=None, write_site=None, at="chart"):
            folder = tmp_path / at
            folder.mkdir()
            (folder / "chart.ndjson").write_bytes(b"\n".join(msgspec.json.encode(one) for one in resources))
            made = SimpleNamespace(addresses=[])

            def make_app(url):
                made.app = create_app(
                    folder,
                    clock=EmrClock(real_now=real_now, now=NOW),
                    clients=clients,
                    open_access=clients is None,
                    base_url=url,
                    sleep=sleep,
                    vendor_site=vendor_site,
                    write_site=write_site,
                )

                async def noting(scope, receive, send):
                    made.addresses.append(f"{scope.get('path')}?{scope.get('query_string', b'').decode()}")
                    await made.app(scope, receive, send)

                return noting

            made.url = await stack.enter_async_context(listening(make_app))
            made.parts = made.app.state.emr
            return made

        yield start
        released.set()


@pytest.fixture
def bundles_folder(tmp_path, bundle_files):
    """Give a folder of two bundles, hematocrit and, of the same files under another name, anemia."""
    manifest = bundles.parse_manifest(bundle_files[bundles.MANIFEST_FILE])
    for model_id in ("hematocrit", "anemia"):
        folder = tmp_path / "bundles" / model_id
        folder.mkdir(parents=True)
        for name, content in bundle_files.items():
            (folder / name).write_bytes(content)
        (folder / bundles.MANIFEST_FILE).write_bytes(msgspec.structs.replace(manifest, model_id=model_id).to_json())
    return tmp_path / "bundles"


@pytest.fixture(scope="session")
def model_proofs(tmp_path_factory):
    """Give the file of models that were tried out, for all tests of a session: the same few are tried out once."""
    return tmp_path_factory.getbasetemp() / "proofs.json"


@pytest.fixture
async def app_of(tmp_path, model_proofs, bundles_folder):  # noqa: C901 a branch for each channel
    """Give a function that builds the app against an EMR's address, with its functions by name, as a host gets them.

    Its clock stands at `now` until `set_clock` moves it.
    """
    import azure.functions as func

    from deployr_serve.alert_bootstrap import watch_of
    from deployr_serve.blueprint import serving_blueprint
    from deployr_serve.blueprint_alerts import alert_blueprint
    from deployr_serve.blueprint_audit import audit_blueprint
    from deployr_serve.blueprint_batch import batch_blueprint
    from deployr_serve.blueprint_bpa import bpa_blueprint
    from deployr_serve.blueprint_cds import cds_blueprint
    from deployr_serve.blueprint_models import models_blueprint
    from deployr_serve.bootstrap import build
    from deployr_serve.settings import read_settings
    from label_extractors.blueprint import label_blueprint

    clock_file = tmp_path / "clock"
    applications = []

    def make(url, **settings):
        clock_file.write_text(NOW.isoformat())
        read = read_settings(
            {
                "DEPLOYR_BUNDLES": str(bundles_folder),
                "DEPLOYR_MODEL_PROOFS": str(model_proofs),
                "DEPLOYR_STORE": f"sqlite:{tmp_path / 'store.sqlite'}",
                "DEPLOYR_EMR_FHIR_BASE": f"{url}/api/FHIR/R4",
                "DEPLOYR_EMR_VENDOR_BASE": url,
                "DEPLOYR_CLOCK_FILE": str(clock_file),
                **settings,
            }
        )
        application = build(read)
        applications.append(application)
        app = func.FunctionApp()
        app.register_functions(serving_blueprint(application, relay_schedule="*/30 * * * * *"))
        app.register_functions(alert_blueprint(watch_of(read, application), schedule=read.alerts.schedule))
        if application.cds is not None:
            app.register_functions(cds_blueprint(application, application.cds))
        if read.bpa is not None:
            app.register_functions(bpa_blueprint(application, read.bpa))
        if application.batches is not None:
            app.register_functions(batch_blueprint(application.batches))
        if application.audit is not None:
            app.register_functions(audit_blueprint(application.services, application.audit))
        if application.registry is not None:
            app.register_functions(models_blueprint(application, application.registry))
        app.register_functions(label_blueprint(application.services, application.outcomes, read.labels))
        functions = {function.get_function_name(): function.get_user_function() for function in app.get_functions()}

        async def infer(body=None, *, model="hematocrit", headers=None, **fields):
            if body is None:
                body = msgspec.json.encode(
                    {"patientId": "p1", "encounterId": "e1", "orderId": "o1", "eventTime": "2015-01-06T20:55:00Z"}
                    | fields
                )
            request = func.HttpRequest(
                "POST",
                f"/api/models/{model}/infer",
                headers={"Content-Type": "application/json", **(headers or {})},
                route_params={"model": model},
                body=body,
            )
            return await functions["infer"](request)

        async def get(name):
            return await functions[name](func.HttpRequest("GET", f"/api/{name}", body=b""))

        async def fire(name):
            await functions[name](None)

        async def cds(method, path="", *, headers=None, body=b""):
            """Call ``/cds-services`` or what is under it, as the host routes it."""
            service, _, feedback = path.partition("/")
            name = "cds_feedback" if feedback else "cds_service" if service else "cds_discovery"
            params = {"id": service} if service else {}
            url = f"/cds-services/{path}".rstrip("/")
            return await functions[name](
                func.HttpRequest(method, url, headers=headers or {}, route_params=params, body=body)
            )

        async def bpa(body, *, model="hematocrit", headers=None):
            """Send a document to ``/api/bpa/{model}``, or an acknowledgement to its own route."""
            name = "bpa_acknowledgements" if model == "acknowledgements" else "bpa"
            content_type = "application/json" if name == "bpa_acknowledgements" else "application/xml"
            request = func.HttpRequest(
                "POST",
                f"/api/bpa/{model}",
                headers={"Content-Type": content_type, **(headers or {})},
                route_params={"model_or_group": model},
                body=body.encode() if isinstance(body, str) else body,
            )
            return await functions[name](request)

        return SimpleNamespace(
            application=application,
            store=application.services.store,
            functions=functions,
            infer=infer,
            bpa=bpa,
            get=get,
            fire=fire,
            cds=cds,
            set_clock=lambda instant: clock_file.write_text(instant.isoformat()),
        )

    yield make
    for application in applications:
        await application.aclose()
