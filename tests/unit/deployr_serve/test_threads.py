"""A model whose code is somebody else's meets the deadline, however long it takes, and holds up nobody."""

from __future__ import annotations

import asyncio
import threading

import msgspec
import pytest

from deployr_core.estimator_model import EstimatorModel
from deployr_core.model_format import JOBLIB_FILE, MODEL_FILE, ModelFormat
from deployr_core.packet import Failed, Scored
from deployr_serve.adapters.threads import DaemonThreads
from deployr_serve.core.infer import infer


@pytest.fixture
def let_go():
    """Give an event that ends all that hangs; set at the test's end."""
    event = threading.Event()
    yield event
    event.set()


class Hanging:
    """Predicts half for everybody, once it is let go."""

    def __init__(self, event):
        self._event = event
        self.threads = []

    def predict(self, rows):
        self.threads.append(threading.current_thread())
        self._event.wait()
        return [0.5] * len(rows)


@pytest.fixture
def hanging(bundle, let_go):
    """Give a bundle whose model runs code that hangs, and the estimator."""
    estimator = Hanging(let_go)
    model = EstimatorModel(estimator, n_features=bundle.manifest.n_features)
    parts = dict(bundle.manifest.parts)
    parts[JOBLIB_FILE] = parts.pop(MODEL_FILE)
    kind = ModelFormat(kind="joblib", runs_code=True)
    manifest = msgspec.structs.replace(bundle.manifest, model=kind, parts=parts)
    return msgspec.structs.replace(bundle, model=model, manifest=manifest), estimator


async def test_a_model_that_hangs_fails_at_the_deadline_and_others_are_answered_meanwhile(
    hanging, bundle, services_of, request_of, models_of
):
    slow, _ = hanging
    services = services_of(models=models_of(hematocrit=slow, anemia=bundle), deadline_s=3.0)
    waiting = asyncio.ensure_future(infer(request_of(), services))
    quick = await infer(request_of(model_id="anemia"), services)
    assert isinstance(quick.packet.outcome, Scored)
    assert not waiting.done()
    assert (await waiting).packet.outcome == Failed(reason="model-error", retryable=False)


async def test_code_of_others_runs_beside_the_event_loop_and_ours_in_it(
    hanging, services_of, request_of, models_of, let_go
):
    slow, estimator = hanging
    let_go.set()
    services = services_of(models=models_of(hematocrit=slow))
    answer = await infer(request_of(), services)
    assert answer.packet.outcome.score == 1 / 2
    [thread] = estimator.threads
    assert thread is not threading.current_thread()
    assert thread.daemon


async def test_once_so_many_hang_nobody_waits_any_more(let_go):
    threads = DaemonThreads(most=2)
    begun = []

    def hang():
        begun.append(threading.current_thread())
        let_go.wait()

    for _ in range(2):
        with pytest.raises(TimeoutError):
            await threads.run(hang, name="a model", within_s=0.05)
    with pytest.raises(TimeoutError, match="have not answered"):
        await threads.run(hang, name="a model", within_s=60.0)
    assert len(begun) == 2
    assert await threads.run(lambda: 1, name="another model", within_s=60.0) == 1
    let_go.set()
    for thread in begun:
        thread.join()  # once a thread has ended, what it tells the loop stands in the loop's queue
    await asyncio.sleep(0)
    assert await threads.run(lambda: 2, name="a model", within_s=60.0) == 2


async def test_what_the_work_raises_is_raised():
    def fail():
        raise KeyError("a fault of the model's")

    with pytest.raises(KeyError):
        await DaemonThreads().run(fail, name="a model", within_s=60.0)


async def test_without_time_left_nothing_is_begun():
    with pytest.raises(TimeoutError):
        await DaemonThreads().run(lambda: pytest.fail("begun"), name="a model", within_s=0.0)
