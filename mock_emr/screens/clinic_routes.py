"""The screens of a clinician: patient list, chart, order entry with its advisory, In Basket."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route

from mock_emr.emr import FHIR_ROOT, Emr
from mock_emr.screens.asking import Answered
from mock_emr.screens.census import MOST_COLUMNS, cells_of, census_of
from mock_emr.screens.chart import SPANS, Stay, chart_of, stays_in
from mock_emr.screens.ordering import Ordering, Pending
from mock_emr.screens.pages import FormRefused, Pages, form_of, go
from mock_emr.screens.people import Person, person_of
from mock_emr.screens.score_cells import by_contact, model_title, score_cells

_SAID = {"signed": "The order is signed.", "taken-back": "The order was taken back; nothing was signed."}
_LONGEST_COMMENT = 1_000


@dataclass(frozen=True, kw_only=True)
class ClinicScreens:
    """What the clinician's routes share."""

    emr: Emr
    pages: Pages
    ordering: Ordering

    def routes(self) -> list[Route]:
        """Give the routes."""
        return [
            Route("/", self.start, methods=["GET"]),
            Route("/patients", self.patients, methods=["GET"]),
            Route("/patients/{patient}", self.chart, methods=["GET"]),
            Route("/patients/{patient}/order", self.order, methods=["GET"]),
            Route("/patients/{patient}/order", self.sign, methods=["POST"]),
            Route("/advisories/{token}", self.advisory, methods=["GET"]),
            Route("/advisories/{token}", self.answer, methods=["POST"]),
            Route("/in-basket", self.in_basket, methods=["GET"]),
        ]

    async def start(self, _: Request) -> Response:
        """Begin with the patient list."""
        return go("/patients")

    async def patients(self, request: Request) -> Response:
        """Show the patient list."""
        asked = request.query_params
        everybody, words, model = asked.get("who") == "all", asked.get("words", "").strip(), asked.get("score")
        page = int(asked["page"]) if asked.get("page", "").isdecimal() and len(asked["page"]) < 7 else 1
        census = census_of(self.emr, everybody=everybody, words=words, page=page, model=model)
        return self.pages.page(
            "patients",
            census=census,
            everybody=everybody,
            words=words,
            score=model or "",
            titles={model_id: model_title(model_id) for model_id in census.all_models},
            most_columns=MOST_COLUMNS,
        )

    async def chart(self, request: Request) -> Response:
        """Show a patient's chart."""
        person = self._person(request)
        if person is None:
            return self.pages.missing("patient")
        span = request.query_params.get("span", "")
        span = span if span in SPANS else "7 days"
        cells = cells_of(self.emr, person.patient_id, by_contact(self.emr.scores.cells()))
        return self.pages.page(
            "chart",
            person=person,
            chart=chart_of(self.emr, person.patient_id, span=SPANS[span]),
            span=span,
            spans=tuple(SPANS),
            scores=tuple(score_cells(cells).values()),
            said=_SAID.get(request.query_params.get("said", "")),
        )

    async def order(self, request: Request) -> Response:
        """Show order entry."""
        person = self._person(request)
        return self.pages.missing("patient") if person is None else self._order_page(person)

    async def sign(self, request: Request) -> Response:
        """Sign an order, or show first what is advised about it."""
        person = self._person(request)
        if person is None:
            return self.pages.missing("patient")
        try:
            form = await form_of(request)
        except FormRefused as error:
            return self._order_page(person, problem=str(error))
        test = next((one for one in self.ordering.orderables() if one.key == form.get("test")), None)
        stay = next((one for one in self._open_stays(person) if one.encounter_id == form.get("stay")), None)
        if test is None or stay is None:
            return self._order_page(person, problem="Choose a test, and the stay that it is for.")
        token = await self.ordering.sign(
            test,
            patient_id=person.patient_id,
            encounter_id=stay.encounter_id,
            fhir_base=self.emr.url(request, FHIR_ROOT),
        )
        return go(f"/patients/{person.patient_id}?said=signed" if token is None else f"/advisories/{token}")

    async def advisory(self, request: Request) -> Response:
        """Show what is advised about an order; it stands in the way until it is answered."""
        pending = self.ordering.pending(str(request.path_params["token"]))
        return self.pages.missing("advisory") if pending is None else self._advisory_page(request, pending)

    async def answer(self, request: Request) -> Response:
        """Take the clinician's answer."""
        token = str(request.path_params["token"])
        pending = self.ordering.pending(token)
        if pending is None:
            return self.pages.missing("advisory")
        try:
            form = await form_of(request)
        except FormRefused as error:
            return self._advisory_page(request, pending, problem=str(error))
        answered = _answered(form, pending)
        unanswered = [one for one in pending.advisories if one.reasons and one.advisory_id not in answered.reasons]
        if answered.taken is None and unanswered:
            return self._advisory_page(request, pending, problem="Choose a reason to sign the order all the same.")
        is_signed = await self.ordering.answer(token, answered)
        return go(f"/patients/{pending.patient_id}?said={'signed' if is_signed else 'taken-back'}")

    async def in_basket(self, _: Request) -> Response:
        """Show the messages that were sent to this EMR's users, the latest first."""
        messages = [
            (message, person_of(self.emr, message.patient_id)) for message in reversed(self.emr.written.messages)
        ]
        return self.pages.page("in_basket", messages=messages)

    def _person(self, request: Request) -> Person | None:
        return person_of(self.emr, str(request.path_params["patient"]))

    def _open_stays(self, person: Person) -> tuple[Stay, ...]:
        return tuple(stay for stay in stays_in(self.emr, person.patient_id) if stay.status == "in-progress")

    def _order_page(self, person: Person, *, problem: str | None = None) -> Response:
        return self.pages.page(
            "order",
            status=200 if problem is None else 422,
            person=person,
            tests=self.ordering.orderables(),
            stays=self._open_stays(person),
            problem=problem,
        )

    def _advisory_page(self, request: Request, pending: Pending, *, problem: str | None = None) -> Response:
        return self.pages.page(
            "advisory",
            status=200 if problem is None else 422,
            person=person_of(self.emr, pending.patient_id),
            pending=pending,
            action=request.url.path,
            problem=problem,
        )


def _answered(form: Mapping[str, str], pending: Pending) -> Answered:
    """Read the form: the button that was pressed, and of each advisory one of the reasons that it offers."""
    reasons = {
        advisory.advisory_id: chosen
        for number, advisory in enumerate(pending.advisories, start=1)
        if (chosen := form.get(f"reason-{number}")) in {reason.code for reason in advisory.reasons}
        and chosen is not None
    }
    comment = form.get("comment", "").strip()[:_LONGEST_COMMENT]
    return Answered(taken=form.get("take") or None, reasons=reasons, comment=comment or None)
