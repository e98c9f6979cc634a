"""A site's functions at their place among others', and log lines that say whose they are."""

from __future__ import annotations

import asyncio
import logging
from contextvars import ContextVar

import azure.functions as func
import pytest

from deployr_serve.blueprint_sites import at_site
from deployr_serve.core.site_logs import fresh_context, on_behalf_of, tell_sites

MOVED = {"route": lambda route: f"sites/north/{route}"}


def functions():
    blueprint = func.Blueprint()

    @blueprint.function_name("ask")
    @blueprint.route("api/models/{model}/infer", methods=["POST", "PUT"], auth_level=func.AuthLevel.FUNCTION)
    async def ask(req: func.HttpRequest) -> func.HttpResponse:
        return func.HttpResponse(req.get_body())

    @blueprint.function_name("look")
    @blueprint.route("look", auth_level=func.AuthLevel.ANONYMOUS)
    async def look(req: func.HttpRequest) -> func.HttpResponse:
        return func.HttpResponse(req.get_body())

    @blueprint.function_name("tick")
    @blueprint.timer_trigger("timer", schedule="*/30 * * * * *", run_on_startup=True, use_monitor=False)
    async def tick(timer: func.TimerRequest) -> None:
        """Do nothing."""

    @blueprint.function_name("take")
    @blueprint.queue_trigger("message", "chunks-north", connection="AzureWebJobsStorage")
    async def take(message: func.QueueMessage) -> None:
        """Do nothing."""

    app = func.FunctionApp()
    app.register_functions(blueprint)
    return app.get_functions()


def test_at_its_place_a_function_has_all_that_its_trigger_said_but_for_name_and_route():
    app = func.FunctionApp()
    app.register_functions(at_site("north", functions()))
    placed = {each.get_function_name(): each for each in app.get_functions()}
    assert sorted(placed) == ["north_ask", "north_look", "north_take", "north_tick"]
    for alone in functions():
        there = placed[f"north_{alone.get_function_name()}"]
        said = alone.get_trigger().get_dict_repr()
        wanted = {name: MOVED.get(name, lambda same: same)(value) for name, value in said.items()}
        assert there.get_trigger().get_dict_repr() == wanted
        assert len(there.get_bindings()) == len(alone.get_bindings())


async def test_at_its_place_a_function_answers_as_ever():
    app = func.FunctionApp()
    app.register_functions(at_site("north", functions()))
    asked = next(each for each in app.get_functions() if each.get_function_name() == "north_ask")
    answer = await asked.get_user_function()(func.HttpRequest("POST", "/", body=b"same"))
    assert answer.get_body() == b"same"


@pytest.fixture
def told(caplog):
    before = logging.getLogRecordFactory()
    tell_sites()
    tell_sites()
    caplog.set_level(logging.INFO)
    yield caplog
    logging.setLogRecordFactory(before)


async def test_tasks_say_on_whose_behalf_they_were_begun_and_others_nothing(told):
    log = logging.getLogger("deployr_serve.test")

    async def work(percent):
        log.info("done: %d%%", percent)

    with on_behalf_of("north"):
        north = asyncio.create_task(work(1))
    with on_behalf_of("south"):
        await work(2)
    await asyncio.gather(north, work(3))
    assert sorted(each.getMessage() for each in told.records) == [
        "done: 1% site=north",
        "done: 2% site=south",
        "done: 3%",
    ]


async def test_a_fresh_context_holds_whose_site_it_is_and_nothing_else(told):
    request = ContextVar("request", default="none")
    request.set("a clinician's")

    async def work():
        logging.getLogger("deployr_serve.test").info("request: %s", request.get())

    with on_behalf_of("north"):
        await asyncio.get_running_loop().create_task(work(), context=fresh_context())
    assert [each.getMessage() for each in told.records] == ["request: none site=north"]
