"""Servers are looked at, and what to change in them is said."""

import json
from collections.abc import Callable, Iterator
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner, Result
from cryptography import x509
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import JSONResponse, PlainTextResponse, Response
from starlette.routing import Route

from headroom.processes.ports import free_port
from headroom.servers.command import look
from simulator.app import create_app
from simulator.config import Config
from simulator.hardware import PRESETS
from tests.live import live
from tests.serving.authority import LOCAL, Authority

Answer = Callable[[Request], Response]


@pytest.fixture(scope="module")
def simulated() -> Iterator[str]:
    config = Config(host="", port=0, name="pod", model="m", hardware=PRESETS["fast"], speed_factor=40.0)
    with live(create_app(config)) as url:
        yield url


def server(pages: dict[str, Answer]) -> Starlette:
    def route(path: str, answer: Answer) -> Route:
        async def endpoint(request: Request) -> Response:
            return answer(request)

        return Route(path, endpoint, methods=["GET", "POST"])

    return Starlette(routes=[route(path, answer) for path, answer in pages.items()])


def models(*names: str, owned_by: str = "vllm", **more: Any) -> Answer:
    return lambda _: JSONResponse({"data": [{"id": name, "owned_by": owned_by, **more} for name in names]})


def text(content: str) -> Answer:
    return lambda _: PlainTextResponse(content)


def run(*arguments: str) -> Result:
    return CliRunner().invoke(look, arguments, env={"COLUMNS": "200"})


def found(*arguments: str) -> list[dict[str, Any]]:
    return list(json.loads(run(*arguments, "--json").stdout))


def test_a_server_of_vllms_metrics_needs_no_change(simulated: str) -> None:
    done = run(simulated)
    assert done.exit_code == 0, done.output
    assert len(done.stdout.strip().splitlines()) == 6, "one table and no advice"
    [one] = found(simulated)
    assert (one["engine"], one["models"], one["counts_tokens"]) == ("vllm", ["m"], True)
    assert one["missing"] == one["advice"] == []


def test_nothing_is_asked_if_told_so(simulated: str) -> None:
    assert found(simulated, "--no-ask")[0]["counts_tokens"] is None


@pytest.mark.parametrize(
    ("owner", "switch"), [("sglang", "--enable-metrics"), ("vllm", "--disable-log-stats"), ("x", "Prometheus metrics")]
)
def test_a_server_without_metrics_is_told_how_to_have_them(owner: str, switch: str) -> None:
    with live(server({"/v1/models": models("m", owned_by=owner)})) as url:
        done = run(url)
    assert done.exit_code == 0
    assert "no metrics of a known engine" in done.stdout
    assert switch in done.stdout


def test_metrics_on_the_second_path_and_missing_ones_are_found() -> None:
    page = "trtllm_num_requests_waiting 0\ntrtllm_num_requests_running 0\n"
    with live(server({"/v1/models": models("m"), "/metrics": text("[]"), "/prometheus/metrics": text(page)})) as url:
        [one] = found(url)
    assert (one["engine"], one["missing"]) == ("trtllm-serve", ["KV cache", "size of the cache"])


def test_streams_without_a_count_are_noticed() -> None:
    stream = 'data: {"choices":[{"text":"a"}]}\n\ndata: [DONE]\n\n'
    with live(server({"/v1/models": models("m"), "/v1/completions": text(stream)})) as url:
        [one] = found(url)
    assert one["counts_tokens"] is False
    assert any("don't count tokens" in line for line in one["advice"])


def test_adapters_are_told_apart_from_models() -> None:
    cards = [{"id": "base"}, {"id": "adapter", "parent": "base"}]
    with live(server({"/v1/models": lambda _: JSONResponse({"data": cards})})) as url:
        [one] = found(url)
    assert (one["models"], one["adapters"]) == (["base"], ["adapter"])


def test_servers_of_different_models_are_no_pool(simulated: str) -> None:
    with live(server({"/v1/models": models("other")})) as url:
        assert "don't serve the same models" in run(simulated, url).stdout


def test_a_key_is_sent_and_a_wrong_one_explained(tmp_path: Path) -> None:
    def listed(request: Request) -> Response:
        known = request.headers.get("authorization") == "Bearer right"
        return models("m")(request) if known else Response("", 401)

    (tmp_path / "key").write_text("right\n")
    with live(server({"/v1/models": listed})) as url:
        assert found(url, "--api-key-file", str(tmp_path / "key"))[0]["problem"] == ""
        done = run(url)
    assert done.exit_code == 1
    assert "refuses the API key (401): --server-key-file" in done.stdout


@pytest.mark.parametrize(
    ("answer", "problem"),
    [
        (text("hello"), "/v1/models is no list of models"),
        (text('{"data": [{"name": "m"}]}'), "/v1/models is no list of models"),
        (text('{"data": []}'), "it serves no model"),
        (lambda _: Response("", 404), "status 404: is this a server of OpenAI's API?"),
    ],
)
def test_what_is_no_model_server_is_said(answer: Answer, problem: str) -> None:
    with live(server({"/v1/models": answer})) as url:
        done = run(url)
    assert done.exit_code == 1
    assert problem in done.stdout


@pytest.mark.parametrize(
    ("url", "problem"), [("http://127.0.0.1:{port}", "it can't be reached"), ("gpu1", "this is no URL of a server")]
)
def test_a_server_that_is_not_there_is_said(url: str, problem: str) -> None:
    done = run(url.format(port=free_port()))
    assert done.exit_code == 1
    assert problem in done.stdout


def test_a_servers_text_does_not_reach_the_terminal() -> None:
    with live(server({"/v1/models": models("\x1b[31mred[/]")})) as url:
        stdout = run(url).stdout
    assert "\x1b" not in stdout
    assert "[31mred[/]" in stdout


def test_a_server_behind_tls_and_a_key_for_its_metrics_is_looked_at(tmp_path: Path) -> None:
    page = "vllm:num_requests_waiting 0\nvllm:num_requests_running 0\n"

    def metrics(request: Request) -> Response:
        known = request.headers.get("authorization") == "Bearer right"
        return PlainTextResponse(page) if known else Response("", 401)

    authority, key = Authority(), tmp_path / "key"
    key.write_text("right\n")
    ca = authority.write_ca(tmp_path / "ca.crt")
    app = server({"/v1/models": models("m"), "/metrics": metrics})
    with live(app, certificate=authority.issue(tmp_path / "server")) as url:
        flags = ("--no-ask", "--server-ca-file", ca)
        [one] = found(url, *flags, "--server-key-file", str(key))
        assert (one["problem"], one["engine"]) == ("", "vllm")
        [one] = found(url, *flags)
        assert "/metrics refuses the API key (401): --server-key-file names a file with one" in one["advice"][0]
        assert found(url, "--no-ask", "--server-insecure")[0]["problem"] == ""
        plain = run(url.replace("https:", "http:"))
        assert (plain.exit_code, "it speaks TLS: expected https://" in plain.stdout) == (1, True)


@pytest.mark.parametrize(
    ("case", "said"),
    [
        (
            "another authority",
            "isn't trusted (unable to get local issuer certificate): --server-ca-file names the file",
        ),
        ("expired", "has expired: renew it on the server (--server-insecure accepts any)"),
        ("another name", "is for another name: IP address mismatch, certificate is not valid for '127.0.0.1'"),
    ],
)
def test_a_certificate_that_is_not_accepted_is_explained(case: str, said: str, tmp_path: Path) -> None:
    authority = Authority()
    names = (x509.DNSName("elsewhere"),) if case == "another name" else LOCAL
    folder = authority.issue(tmp_path / "server", timedelta(hours=-1 if case == "expired" else 1), names)
    trusted = Authority("another") if case == "another authority" else authority
    with live(server({"/v1/models": models("m")}), certificate=folder) as url:
        done = run(url, "--server-ca-file", trusted.write_ca(tmp_path / "ca.crt"))
    assert done.exit_code == 1
    assert said in done.stdout


def test_a_server_without_tls_at_an_https_url_is_explained(simulated: str) -> None:
    done = run(simulated.replace("http:", "https:"))
    assert done.exit_code == 1
    assert "it doesn't speak TLS: expected http" in done.stdout


def test_a_key_does_not_follow_a_redirect(tmp_path: Path) -> None:
    (tmp_path / "key").write_text("secret\n")
    asked: list[str] = []

    def elsewhere(request: Request) -> Response:
        asked.append(request.headers.get("authorization", ""))
        return models("m")(request)

    with live(server({"/v1/models": elsewhere})) as other:
        away = Response("", 307, {"location": f"{other}/v1/models"})
        with live(server({"/v1/models": lambda _: away})) as url:
            done = run(url, "--server-key-file", str(tmp_path / "key"))
    assert f"redirects to {other}/v1/models: name the server itself" in done.stdout
    assert asked == []


def test_a_page_of_metrics_elsewhere_is_said_since_the_picker_follows_no_redirect() -> None:
    away = Response("", 307, {"location": "/metrics/"})
    page = text("vllm:num_requests_waiting 0\n")
    with live(server({"/v1/models": models("m"), "/metrics": lambda _: away, "/metrics/": page})) as url:
        [one] = found(url, "--no-ask")
    assert one["advice"][0].startswith(f"{url}/metrics redirects to /metrics/: name the server itself")
