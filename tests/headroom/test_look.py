"""Servers are looked at, and what to change in them is said."""

import json
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner, Result
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
    assert "refuses the API key (401): --api-key-file" in done.stdout


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
