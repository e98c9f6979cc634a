"""Who may look, at what, and how that stands in an address."""

from __future__ import annotations

from datetime import UTC, date, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest

from deployr_dash.filters import Filters, before, chosen, filters_of, query_of, window_of, within
from deployr_dash.plan import PlanUnusable, read_plans
from deployr_dash.sign_in import (
    LONGEST,
    PROXY_SECRET_HEADER,
    Admitted,
    Refused,
    Remedy,
    SignIn,
    SignInKind,
    admit,
    check_auth,
    check_deeds,
    check_start,
)
from tests.unit.deployr_dash.made_up import packets

PROXY = SignIn(kind=SignInKind.PROXY)
ENTRA = SignIn(kind=SignInKind.ENTRA, client_id="dashboard")
NOW = datetime(2026, 3, 2, 9, tzinfo=UTC)
ADA = {"aud": "dashboard", "iat": NOW.timestamp() - 60, "name": "Ada", "roles": ["Monitor.Read"]}
AUTH = {
    "client_id": "dashboard",
    "client_secret": "of-the-app",
    "cookie_secret": "drawn-at-random-and-long-enough-",
    "redirect_uri": "https://models.hospital.example/oauth2callback",
    "server_metadata_url": "https://login.microsoftonline.com/1b2c3d4e/v2.0/.well-known/openid-configuration",
}
ANYWHERE = "0.0.0.0"  # noqa: S104 # what must be refused
PLAN = """model: hematocrit
watched:
  - metric: AUROC
    cadence: monthly
    owner: Clinical AI team
    action: Call the committee.
"""


def test_an_address_gives_back_the_filters_that_it_was_made_of() -> None:
    filters = Filters(
        first=date(2015, 1, 2),
        last=date(2015, 2, 3),
        version="3d4e5f",
        cohort={"sex": "female", "age_band": "[18,40)"},
        only_ripe=False,
    )
    query = query_of(filters)
    assert query == {
        "from": "2015-01-02",
        "to": "2015-02-03",
        "version": "3d4e5f",
        "labels": "all",
        "sex": "female",
        "age": "[18,40)",
    }
    assert filters_of(query) == filters
    assert filters_of({}) == Filters()


def test_what_cannot_be_read_in_an_address_is_passed_over() -> None:
    assert filters_of({"from": "yesterday", "labels": "some", "patient": "1"}) == Filters()
    turned = filters_of({"from": "2015-02-03", "to": "2015-01-02"})
    assert (turned.first, turned.last) == (date(2015, 1, 2), date(2015, 2, 3))


def test_a_window_holds_both_days_whole_and_the_one_before_is_as_long() -> None:
    window = window_of(Filters(last=date(2015, 1, 2)), first_day=date(2015, 1, 1), last_day=date(2015, 3, 1))
    assert (window.start, window.end) == (datetime(2015, 1, 1, tzinfo=UTC), datetime(2015, 1, 3, tzinfo=UTC))
    assert before(window).start == datetime(2014, 12, 30, tzinfo=UTC)
    assert before(window).end == window.start


def test_a_cohort_and_a_version_are_chosen_and_nobody_is_in_both_of_two() -> None:
    frame = packets(300)
    women = chosen(frame, Filters(cohort={"sex": "female"}))
    men = chosen(frame, Filters(cohort={"sex": "male"}))
    assert len(women) + len(men) == int((frame["kind"] == "scored").sum())
    assert set(chosen(frame, Filters(version="3d4e5f"))["version"]) == {"3d4e5f"}
    assert chosen(frame, Filters(version="none of ours")).empty


def test_a_window_begins_with_its_start_and_ends_before_its_end() -> None:
    frame = packets(300)
    window = window_of(Filters(), first_day=date(2015, 1, 10), last_day=date(2015, 1, 11))
    days = within(frame, window)["received_at"].dt.day
    assert set(days) == {10, 11}


@pytest.mark.parametrize(
    ("sign_in", "production", "address", "wrong"),
    [
        (SignIn(kind=SignInKind.NONE), True, "127.0.0.1", "prod profile"),
        (SignIn(kind=SignInKind.NONE), False, ANYWHERE, "sign-in where others"),
        (PROXY, True, ANYWHERE, "could name themselves"),
    ],
)
def test_a_dashboard_that_anybody_could_look_at_does_not_start(
    sign_in: SignIn, production: bool, address: str, wrong: str
) -> None:
    with pytest.raises(ValueError, match=wrong):
        check_start(sign_in, is_production=production, address=address)


@pytest.mark.parametrize(
    ("sign_in", "production", "address"),
    [
        (SignIn(kind=SignInKind.NONE), False, "127.0.0.1"),
        (PROXY, True, "127.0.0.1"),
        (SignIn(kind=SignInKind.PROXY, secret="s" * 32), True, ANYWHERE),
        (SignIn(kind=SignInKind.ENTRA), True, ANYWHERE),
    ],
)
def test_a_dashboard_behind_a_sign_in_starts(sign_in: SignIn, production: bool, address: str) -> None:
    check_start(sign_in, is_production=production, address=address)


def test_whom_the_proxy_names_is_let_in_and_nobody_else() -> None:
    assert admit(PROXY, {"x-forwarded-user": " ada "}, now=NOW) == Admitted(name="ada")
    assert isinstance(admit(PROXY, {}, now=NOW), Refused)
    assert isinstance(admit(PROXY, {"x-forwarded-user": " "}, now=NOW), Refused)


def test_a_header_without_the_proxys_secret_is_not_believed() -> None:
    sign_in = SignIn(kind=SignInKind.PROXY, secret="right")
    named = {"x-forwarded-user": "ada"}
    assert isinstance(admit(sign_in, named, now=NOW), Refused)
    assert isinstance(admit(sign_in, {**named, PROXY_SECRET_HEADER.lower(): "wrong"}, now=NOW), Refused)
    assert admit(sign_in, {**named, PROXY_SECRET_HEADER.lower(): "right"}, now=NOW) == Admitted(name="ada")
    assert "right" not in repr(sign_in)


def test_entra_lets_in_whom_it_signed_in_for_this_app_until_the_day_is_over() -> None:
    refused = Refused(why="Sign in with your work account.", remedy=Remedy.SIGN_IN)
    assert admit(ENTRA, {"x-forwarded-user": "ada"}, now=NOW) == refused
    assert admit(ENTRA, {}, claims=ADA, now=NOW) == Admitted(name="Ada")
    nameless = {**ADA, "name": "", "email": "ada@hospital"}
    assert admit(ENTRA, {}, claims=nameless, now=NOW) == Admitted(name="ada@hospital")
    for wrong in ({"aud": "another"}, {"aud": ["another"]}, {"iat": None}, {"name": None}):
        assert admit(ENTRA, {}, claims={**ADA, **wrong}, now=NOW) == refused
    issued = datetime.fromtimestamp(NOW.timestamp() - 60, UTC)
    assert isinstance(admit(ENTRA, {}, claims=ADA, now=issued + LONGEST), Admitted)
    too_late = admit(ENTRA, {}, claims=ADA, now=issued + LONGEST + timedelta(seconds=1))
    assert too_late == Refused(why="Your sign-in is more than 12 hours old. Sign in again.", remedy=Remedy.SIGN_IN)


def test_where_a_role_is_asked_for_nobody_without_one_is_let_in() -> None:
    asking = SignIn(kind=SignInKind.ENTRA, client_id="dashboard", roles=frozenset({"Monitor.Read", "Admin"}))
    assert admit(asking, {}, claims=ADA, now=NOW) == Admitted(name="Ada")
    for held in ({}, {"roles": []}, {"roles": ["Other"]}, {"roles": "Monitor.Read"}):
        refused = admit(asking, {}, claims={**ADA, "roles": None, **held}, now=NOW)
        assert isinstance(refused, Refused)
        assert refused.remedy is Remedy.SIGN_OUT
        assert "without the role Admin or Monitor.Read" in refused.why


def test_a_whole_auth_section_gives_the_apps_client_id() -> None:
    assert check_auth(AUTH) == "dashboard"
    here = {"redirect_uri": "http://127.0.0.1:8501/oauth2callback", "server_metadata_url": "http://localhost:1/x"}
    assert check_auth({**AUTH, **here}) == "dashboard"


@pytest.mark.parametrize(
    ("wrong", "expected"),
    [
        ({"client_secret": "", "redirect_uri": 1}, "expected client_secret, redirect_uri in"),
        ({"cookie_secret": "of-the-app"}, "cookie_secret: expected 32 characters"),
        ({"redirect_uri": "https://models.hospital.example/"}, "oauth2callback at its end"),
        ({"redirect_uri": "http://models.hospital.example/oauth2callback"}, "redirect_uri: expected https"),
        ({"server_metadata_url": "http://login.microsoftonline.com/1b2c/v2.0"}, "server_metadata_url: expected https"),
        ({"server_metadata_url": "https://login.microsoftonline.com/common/v2.0"}, "your tenant's own"),
    ],
)
def test_an_auth_section_that_would_let_the_wrong_people_in_is_refused(wrong: dict[str, object], expected: str) -> None:
    with pytest.raises(ValueError, match=expected) as refused:
        check_auth({**AUTH, **wrong})
    assert "of-the-app" not in str(refused.value)


ACTING = {**AUTH, "expose_tokens": ["access"], "client_kwargs": {"scope": "openid profile api://deployr/registry"}}
APP = "https://deployr.hospital.example"


def test_deeds_are_sent_where_everybody_has_a_proof_of_their_own_or_one_has_on_a_machine_of_theirs() -> None:
    alone = SignIn(kind=SignInKind.NONE)
    check_deeds(ENTRA, app=APP, authorization=None, is_production=True, auth=ACTING)
    check_deeds(ENTRA, app="", authorization=None, is_production=True, auth=AUTH)
    check_deeds(PROXY, app="", authorization=None, is_production=True, auth={})
    check_deeds(alone, app="http://127.0.0.1:7071", authorization="Basic eDp5", is_production=False, auth={})


@pytest.mark.parametrize(
    ("sign_in", "changes", "wrong"),
    [
        (PROXY, {}, "--sign-in entra"),
        (SignIn(kind=SignInKind.NONE), {}, "--sign-in entra"),
        (SignIn(kind=SignInKind.NONE), {"authorization": "Basic eDp5", "is_production": True}, "act as one person"),
        (SignIn(kind=SignInKind.NONE), {"authorization": "Basic eDp5", "app": ""}, "act as one person"),
        (ENTRA, {"authorization": "Basic eDp5"}, "act as one person"),
        (ENTRA, {"app": "http://deployr.hospital.example"}, "https"),
        (ENTRA, {"app": "deployr.hospital.example"}, "the app's address"),
        (ENTRA, {"app": "https://ada@deployr.hospital.example"}, "the app's address"),
        (ENTRA, {"auth": AUTH}, "expose_tokens"),
        (ENTRA, {"auth": {**ACTING, "expose_tokens": ["id", "access"]}}, "expose_tokens"),
        (ENTRA, {"auth": {**ACTING, "client_kwargs": {"scope": "openid profile email"}}}, "a scope of the app's"),
    ],
)
def test_deeds_without_a_proof_of_who_does_them_or_in_the_clear_are_refused(
    sign_in: SignIn, changes: dict[str, Any], wrong: str
) -> None:
    usual: dict[str, Any] = {"app": APP, "authorization": None, "is_production": False, "auth": ACTING}
    with pytest.raises(ValueError, match=wrong) as refused:
        check_deeds(sign_in, **{**usual, **changes})
    assert "eDp5" not in str(refused.value)


def test_plans_are_found_by_model_and_misspelt_ones_are_refused(tmp_path: Path) -> None:
    assert read_plans(None) == {}
    (tmp_path / "hematocrit").mkdir()
    file = tmp_path / "hematocrit" / "monitoring_plan.yaml"
    file.write_text(PLAN, encoding="utf-8")
    assert read_plans(tmp_path)["hematocrit"].watched[0].owner == "Clinical AI team"
    (tmp_path / "again").mkdir()
    (tmp_path / "again" / "monitoring_plan.yaml").write_text(PLAN, encoding="utf-8")
    with pytest.raises(PlanUnusable, match="one plan for hematocrit"):
        read_plans(tmp_path)
    file.write_text(PLAN.replace("owner", "ower"), encoding="utf-8")
    with pytest.raises(PlanUnusable, match=r"^monitoring_plan\.yaml: .*ower"):
        read_plans(tmp_path / "hematocrit")
