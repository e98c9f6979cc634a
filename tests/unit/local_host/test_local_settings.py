import json

import pytest

from deployr_serve.local_host.errors import HostSetupError
from deployr_serve.local_host.local_settings import export_settings, read_local_settings


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
