import pytest

from deployr_serve.local_host.errors import HostSetupError
from deployr_serve.local_host.routes import Matched, NotThere, WrongMethod, resolve, routes_for

GUID = "9f3c1a70-0000-4000-8000-0123456789ab"


@pytest.fixture
def values(http_function):
    """The values that a template takes from a path; None where the path is not its."""

    def resolved(template, path, *, prefix="api"):
        routes = routes_for([http_function(template)], prefix=prefix)
        match resolve(routes, method="GET", raw_path=path.encode()):
            case Matched(route_params=route_params):
                return dict(route_params)
            case other:
                assert other == NotThere()
                return None

    return resolved


@pytest.mark.parametrize(
    ("template", "path", "expected"),
    [
        ("models", "/api/models", {}),
        ("models", "/api/models/", {}),
        ("models", "/API/Models", {}),
        ("models", "/models", None),
        ("models", "/api/models/x", None),
        ("models", "//api/models", None),
        ("models/{model}/infer", "/api/models/sepsis/infer", {"model": "sepsis"}),
        ("models/{model}/infer", "/api/models/Sepsis%20v2/infer", {"model": "Sepsis v2"}),
        ("models/{model}/infer", "/api/models/a%2Fb/infer", {"model": "a%2Fb"}),
        ("models/{model}/infer", "/api/models/a/b/infer", None),
        ("models/{model}/infer", "/api/models//infer", None),
        ("items/{id:int}", "/api/items/42", {"id": "42"}),
        ("items/{id:int}", "/api/items/-42", {"id": "-42"}),
        ("items/{id:int}", "/api/items/4x2", None),
        ("items/{id:int}", "/api/items/x", None),
        ("items/{id:guid}", f"/api/items/{GUID}", {"id": GUID}),
        ("items/{id:guid}", "/api/items/9f3c1a70", None),
        ("items/{id:alpha:maxlength(3)}", "/api/items/abc", {"id": "abc"}),
        ("items/{id:alpha:maxlength(3)}", "/api/items/abcd", None),
        ("items/{id:length(2)}", "/api/items/ab", {"id": "ab"}),
        ("items/{id:minlength(2)}", "/api/items/a", None),
        ("items/{id?}", "/api/items/7", {"id": "7"}),
        ("items/{id?}", "/api/items", {}),
        ("items/{id:int?}", "/api/items/", {}),
        ("items/{id:int?}", "/api/items/x", None),
        ("{*rest}", "/api/a/b/c", {"rest": "a/b/c"}),
        ("{*rest}", "/api", {}),
        ("files/{*rest}", "/api/files/a%20b/c", {"rest": "a b/c"}),
        ("files/{name}.{ext:alpha}", "/api/files/scan.dcm", {"name": "scan", "ext": "dcm"}),
        ("files/{name}.{ext:alpha}", "/api/files/scan.7z", None),
        ("$metadata", "/api/$metadata", {}),
        ("a.b", "/api/axb", None),
    ],
)  # fmt: skip
def test_a_template_takes_its_values_from_the_path(values, template, path, expected):
    assert values(template, path) == expected


@pytest.mark.parametrize(
    ("template", "path", "expected"),
    [("models", "/models", {}), ("{*rest}", "/", {}), ("{model}", "/sepsis", {"model": "sepsis"})],
)
def test_an_empty_prefix_puts_routes_at_the_root(values, template, path, expected):
    assert values(template, path, prefix="") == expected


def test_the_more_particular_route_answers_whatever_the_order(http_function):
    templates = ["{*rest}", "items/{id}", "items/{id:int}", "items/v{id}", "items/new"]
    routes = routes_for([http_function(each, name=each) for each in templates], prefix="api")

    def answering(path):
        resolution = resolve(routes, method="GET", raw_path=path)
        assert isinstance(resolution, Matched)
        return resolution.function.name

    assert answering(b"/api/items/new") == "items/new"
    assert answering(b"/api/items/v1") == "items/v{id}"
    assert answering(b"/api/items/12") == "items/{id:int}"
    assert answering(b"/api/items/abc") == "items/{id}"
    assert answering(b"/api/other") == "{*rest}"


def test_two_functions_share_a_path_by_method(http_function):
    read, write = http_function(name="read", methods={"GET"}), http_function(name="write", methods={"POST"})
    routes = routes_for([read, write], prefix="api")

    assert resolve(routes, method="POST", raw_path=b"/api/models") == Matched(function=write, route_params={})
    assert resolve(routes, method="HEAD", raw_path=b"/api/models") == Matched(function=read, route_params={})
    assert resolve(routes, method="PUT", raw_path=b"/api/models") == WrongMethod(allow=("GET", "HEAD", "POST"))


def test_no_methods_are_all_methods(http_function):
    function = http_function()
    routes = routes_for([function], prefix="api")

    for method in ("GET", "HEAD", "POST", "PUT", "PATCH", "DELETE", "OPTIONS", "PROPFIND"):
        resolution = resolve(routes, method=method, raw_path=b"/api/models")
        assert resolution == Matched(function=function, route_params={})


@pytest.mark.parametrize(
    ("template", "complaint"),
    [
        ("items/{id", "expected segments such as"),
        ("items//{id}", "expected segments such as"),
        ("items/{}", "expected segments such as"),
        ("{id}/{id}", "expected each parameter once"),
        ("{*rest}/more", "expected to come last"),
        ("{id?}/more", "expected to come last"),
        ("v{id?}", "expected to be a segment of its own"),
        ("items/{id:datetime}", "constraint 'datetime' is not supported here, only"),
        ("items/{id:regex(a)}", r"constraint 'regex\(a\)' is not supported here, only"),
    ],
)
def test_a_template_that_cannot_be_read_is_refused_by_function_and_route(http_function, template, complaint):
    with pytest.raises(HostSetupError, match=rf"function infer: route .*{complaint}"):
        routes_for([http_function(template)], prefix="api")


def test_admin_is_the_hosts_own(http_function):
    with pytest.raises(HostSetupError, match="admin is the host's own"):
        routes_for([http_function("Admin/keys")], prefix="")
