import json

import pytest

from deployr_serve.local_host.errors import HostSetupError
from deployr_serve.local_host.local_settings import export_settings, read_cors, read_local_settings


@pytest.fixture
def written(tmp_path):
    def write(content):
        path = tmp_path / "local.settings.json"
        path.write_text(content if isinstance(content, str) else json.dumps(content))
        return path

    return write


def test_the_values_are_the_settings(written):
    path = written({"IsEncrypted": False, "Values": {"A": "1", "B": ""}, "Host": {"CORS": "*"}})

    assert dict(read_local_settings(path)) == {"A": "1", "B": ""}


def test_no_file_is_no_settings(tmp_path):
    assert dict(read_local_settings(tmp_path / "local.settings.json")) == {}


@pytest.mark.parametrize(
    ("content", "complaint"),
    [
        ({"IsEncrypted": True, "Values": {"A": "CfDJ8"}}, "IsEncrypted: expected false"),
        ({"Values": {"PORT": 7071}}, "Values.PORT: expected a string, got int"),
        ({"Values": {"ON": True}}, "Values.ON: expected a string, got bool"),
        ({"Values": {"DEEP": {"A": "1"}}}, "Values.DEEP: expected a string, got dict"),
        ({"Values": ["A"]}, "Values: expected an object of strings"),
        ([], "expected a JSON object with the key Values"),
        ("{", "expected a readable JSON file"),
    ],
)
def test_a_bad_file_is_refused_by_key_and_expectation(written, content, complaint):
    with pytest.raises(HostSetupError, match=complaint):
        read_local_settings(written(content))


def test_a_complaint_about_a_value_does_not_show_it(written):
    with pytest.raises(HostSetupError) as refused:
        read_local_settings(written({"Values": {"SECRET": ["hunter2"]}}))

    assert "hunter2" not in str(refused.value)


def test_the_real_environment_wins():
    environ = {"A": "real"}

    export_settings({"A": "file", "B": "file"}, environ)

    assert environ == {"A": "real", "B": "file"}


def test_the_origins_whose_pages_may_call_are_read(written, tmp_path):
    path = written({"Host": {"CORS": "https://sandbox.example, http://localhost:8080"}, "Values": {}})

    assert read_cors(path) == ("https://sandbox.example", "http://localhost:8080")
    assert read_cors(written({"Host": {"CORS": ""}})) == read_cors(tmp_path / "none.json") == ()


@pytest.mark.parametrize(
    "host",
    [
        {"CORS": "*"},
        {"CORS": "https://sandbox.example/"},
        {"CORS": "https://*.example"},
        {"CORS": "sandbox.example"},
        {"CORS": ["https://sandbox.example"]},
        {"CORS": "https://sandbox.example", "CORSCredentials": True},
        "https://sandbox.example",
    ],
)
def test_origins_that_are_none_and_cookies_are_refused(written, host):
    with pytest.raises(HostSetupError, match=r"Host\.CORS"):
        read_cors(written({"Host": host}))
