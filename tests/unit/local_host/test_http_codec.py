import http

import azure.functions as func
import pytest

from deployr_serve.local_host.http_codec import Answer, NotAnAnswer, answer_of, function_request


def request(*, query=b"", headers=None, body=b""):
    return function_request(
        method="post",
        url="http://localhost/api/infer?" + query.decode(),
        query=query,
        headers=headers or {},
        route_params={"model": "sepsis"},
        body=body,
    )


def test_a_request_is_of_the_class_that_functions_are_annotated_with():
    made = request(body=b'{"a": 1}', headers={"content-type": "application/json"})

    assert isinstance(made, func.HttpRequest)
    assert (made.method, made.url) == ("POST", "http://localhost/api/infer?")
    assert made.route_params == {"model": "sepsis"}
    assert made.headers["Content-Type"] == "application/json"
    assert made.get_body() == b'{"a": 1}'
    assert made.get_json() == {"a": 1}


@pytest.mark.parametrize("body", [b"", b"{", b"\xff\xfe"])
def test_a_body_that_is_no_json_is_a_value_error(body):
    with pytest.raises(ValueError):
        request(body=body).get_json()


def test_a_query_is_decoded_and_a_repeated_name_is_joined_by_a_comma():
    made = request(query=b"name=J%C3%BCrg+K&tag=a&tag=b&empty=")

    assert dict(made.params) == {"name": "Jürg K", "tag": "a,b", "empty": ""}


def test_a_form_can_be_read():
    made = request(body=b"a=1&b=2", headers={"content-type": "application/x-www-form-urlencoded"})

    assert made.form["b"] == "2"


@pytest.mark.parametrize(
    ("returned", "answer"),
    [
        (
            "grüezi",
            Answer(
                status=200,
                headers=((b"content-type", b"text/plain; charset=utf-8"),),
                body="grüezi".encode(),
            ),
        ),
        (
            func.HttpResponse("plain"),
            Answer(status=200, headers=((b"content-type", b"text/plain; charset=utf-8"),), body=b"plain"),
        ),
        (
            func.HttpResponse("é", mimetype="text/html", charset="latin-1"),
            Answer(status=200, headers=((b"content-type", b"text/html; charset=latin-1"),), body=b"\xe9"),
        ),
        (
            func.HttpResponse(b"{}", status_code=http.HTTPStatus.CREATED, mimetype="application/json"),
            Answer(status=201, headers=((b"content-type", b"application/json"),), body=b"{}"),
        ),
        (
            func.HttpResponse(b"<x/>", headers={"Content-Type": "application/fhir+xml", "X-A": "1"}),
            Answer(status=200, headers=((b"content-type", b"application/fhir+xml"), (b"x-a", b"1")), body=b"<x/>"),
        ),
        (func.HttpResponse("dropped", status_code=204), Answer(status=204)),
        (
            func.HttpResponse(headers={"Content-Length": "99", "Transfer-Encoding": "chunked"}),
            Answer(status=200, headers=((b"content-type", b"text/plain; charset=utf-8"),)),
        ),
    ],
)
def test_what_a_function_returns_becomes_an_answer(returned, answer):
    assert answer_of(returned) == answer


def test_a_header_that_comes_twice_is_sent_twice():
    returned = func.HttpResponse(headers={"Set-Cookie": "a=1"})
    returned.headers.add("Set-Cookie", "b=2; Path=/")

    cookies = [text for name, text in answer_of(returned).headers if name == b"set-cookie"]
    assert cookies == [b"a=1", b"b=2; Path=/"]


@pytest.mark.parametrize(
    "returned",
    [
        None,
        b"bytes",
        {"json": 1},
        7,
        func.HttpResponse(status_code=99),
        func.HttpResponse(status_code=600),
        func.HttpResponse(status_code="fine"),
        func.HttpResponse(headers={"X-A": "日本"}),
        func.HttpResponse(headers={"X A": "1"}),
        func.HttpResponse(headers={"": "1"}),
    ],
)
def test_what_http_cannot_carry_is_no_answer(returned):
    with pytest.raises(NotAnAnswer):
        answer_of(returned)
