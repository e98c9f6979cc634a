import json
from datetime import timedelta

import pytest

from deployr_serve.local_host.errors import HostSetupError
from deployr_serve.local_host.host_json import HostJson, parse_host_json, parse_timespan, read_host_json


def parsed(**content):
    return parse_host_json(json.dumps({"version": "2.0", **content}))


def test_a_file_with_its_version_only_has_the_defaults():
    assert parsed() == HostJson(route_prefix="api", function_timeout=timedelta(minutes=30))


def test_no_file_has_the_defaults(tmp_path):
    assert read_host_json(tmp_path / "host.json") == HostJson()


def test_a_byte_order_mark_is_no_error(tmp_path):
    (tmp_path / "host.json").write_text('\ufeff{"version": "2.0"}', encoding="utf-8")

    assert read_host_json(tmp_path / "host.json") == HostJson()


def test_keys_that_this_host_does_not_honour_are_tolerated():
    assert parsed(logging={"logLevel": {"default": "Warning"}}, extensionBundle={"id": "x"}) == HostJson()


@pytest.mark.parametrize(("written", "prefix"), [("api", "api"), ("", ""), ("/fhir/r4/", "fhir/r4"), ("v1", "v1")])
def test_the_route_prefix_has_no_outer_slashes_and_may_be_empty(written, prefix):
    assert parsed(extensions={"http": {"routePrefix": written}}).route_prefix == prefix


@pytest.mark.parametrize(
    ("written", "limit"),
    [
        ("00:05:00", timedelta(minutes=5)),
        ("00:00:30", timedelta(seconds=30)),
        ("1.00:00:00", timedelta(days=1)),
        ("-1", None),
    ],
)
def test_a_function_timeout_is_a_time_span_or_minus_one_for_none(written, limit):
    assert parsed(functionTimeout=written).function_timeout == limit


@pytest.mark.parametrize(
    ("text", "key"),
    [
        ("{}", "version: expected \"2.0\", got null"),
        ('{"version": "3.0"}', 'version: expected "2.0", got "3.0"'),
        ('{"version": 2.0}', 'version: expected "2.0", got 2.0'),
        ("[]", "the file: expected a JSON object"),
        ("{", "expected JSON without comments"),
        ('{"version": "2.0", "extensions": []}', "extensions: expected a JSON object, got list"),
        ('{"version": "2.0", "extensions": {"http": 1}}', "extensions.http: expected a JSON object, got int"),
        ('{"version": "2.0", "extensions": {"http": {"routePrefix": null}}}', "extensions.http.routePrefix"),
        ('{"version": "2.0", "extensions": {"http": {"routePrefix": "{x}"}}}', "extensions.http.routePrefix"),
        ('{"version": "2.0", "functionTimeout": 30}', "functionTimeout: expected"),
        ('{"version": "2.0", "functionTimeout": "00:00:00"}', "functionTimeout: expected"),
        ('{"version": "2.0", "functionTimeout": "5 minutes"}', "functionTimeout: expected"),
    ],
)  # fmt: skip
def test_a_bad_file_is_refused_by_key_and_expectation(text, key):
    with pytest.raises(HostSetupError) as refused:
        parse_host_json(text, where="my/host.json")

    assert str(refused.value).startswith("my/host.json: ")
    assert key in str(refused.value)


@pytest.mark.parametrize(
    ("text", "span"),
    [
        ("00:00:01", timedelta(seconds=1)),
        ("23:59:59", timedelta(hours=23, minutes=59, seconds=59)),
        ("01:30", timedelta(minutes=90)),
        ("00:00:00.25", timedelta(milliseconds=250)),
        ("00:00:00.0000019", timedelta(microseconds=1)),
        ("2.00:00:00", timedelta(days=2)),
        ("24:00:00", None),
        ("1:2:3", None),
        ("7", None),
        ("", None),
        ("00:00:0x", None),
    ],
)
def test_time_spans_of_dotnet(text, span):
    assert parse_timespan(text) == span
