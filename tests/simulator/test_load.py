import subprocess
import sys
from collections.abc import Iterator

import pytest
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route

from simulator.app import create_app
from simulator.config import Config
from simulator.hardware import PRESETS
from simulator.load.replay import replay
from simulator.summary import summarise
from simulator.trace import TraceRequest
from simulator.workload import plan
from tests.live import PATIENCE_S, live


@pytest.fixture(scope="module")
def url() -> Iterator[str]:
    config = Config(host="127.0.0.1", port=0, name="pod-a", model="m", hardware=PRESETS["fast"], speed_factor=20.0)
    with live(create_app(config)) as running:
        yield running


async def test_a_replayed_plan_is_answered_and_summarised(url: str) -> None:
    planned = plan([TraceRequest(index * 0.05, 200, 10) for index in range(6)], seed=1)
    seen: list[int] = []
    outcomes = await replay(url, planned, model="m", on_outcome=lambda outcome: seen.append(outcome.request.index))
    assert sorted(seen) == list(range(6))
    assert {(o.status, o.error, o.output_tokens, o.served_by) for o in outcomes} == {(200, None, 10, "pod-a")}
    summary = summarise(outcomes, 1.0)
    assert (summary["requests"], summary["errors"]) == (6, 0)
    assert 0 < summary["ttft_ms"]["p50"] <= summary["ttft_ms"]["p99"]


async def test_a_refused_request_is_one_outcome_with_an_error(url: str) -> None:
    fine, huge = await replay(url, plan([TraceRequest(0, 10, 2), TraceRequest(0, 10, 40_000)], seed=1), model="m")
    assert (fine.status, fine.error) == (200, None)
    assert huge.status == 400
    assert "maximum context length" in (huge.error or "")
    assert not huge.met


async def test_an_unreachable_server_is_an_error_of_each_request() -> None:
    outcomes = await replay("http://127.0.0.1:1", plan([TraceRequest(0, 10, 2)], seed=1), model="m")
    assert outcomes[0].error
    assert not outcomes[0].met


async def test_a_stream_without_its_end_is_an_error() -> None:
    async def cut(request: Request) -> Response:
        return Response(b'data: {"choices": [{"delta": {"content": "a"}}]}\n\n', media_type="text/event-stream")

    with live(Starlette(routes=[Route("/v1/chat/completions", cut, methods=["POST"])])) as cutting:
        outcome = (await replay(cutting, plan([TraceRequest(0, 10, 2)], seed=1), model="m"))[0]
    assert (outcome.status, outcome.error) == (200, "the stream ended early")


async def test_objectives_and_additional_headers_are_sent() -> None:
    seen: dict[str, str] = {}

    async def note(request: Request) -> Response:
        seen.update(request.headers)
        return Response(b"no", 503)

    planned = plan([TraceRequest(0, 10, 2)], seed=1)
    with live(Starlette(routes=[Route("/v1/chat/completions", note, methods=["POST"])])) as noting:
        await replay(noting, planned, model="m", headers={"x-more": "yes"})
    assert (seen["x-request-id"], seen["x-more"]) == (planned[0].id, "yes")
    assert float(seen["x-slo-ttft-ms"]) == planned[0].slo_ttft_ms
    assert float(seen["x-slo-tpot-ms"]) == planned[0].slo_tpot_ms


def command(*arguments: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-m", "simulator.load", *arguments], capture_output=True, text=True, timeout=PATIENCE_S
    )


def test_the_command_prints_a_line_for_all_and_one_for_each_server(url: str) -> None:
    result = command(url, "--rate=20", "--seconds=0.5", "--max-output-tokens=5", "--model=m")
    assert (result.returncode, result.stderr) == (0, "")
    assert [line.split()[:3] for line in result.stdout.splitlines()[1:]] == [["all", "10", "0"], ["pod-a", "10", "0"]]


def test_the_command_fails_without_any_answer() -> None:
    result = command("http://127.0.0.1:1", "--rate=10", "--seconds=0.2")
    assert result.returncode == 1
    assert "first error: Cannot connect" in result.stderr


@pytest.mark.parametrize("arguments", [["--rate=0"], ["--header=plain"], ["--trace=/absent.csv"]])
def test_the_command_names_a_bad_argument(arguments: list[str]) -> None:
    result = command("http://127.0.0.1:1", *arguments)
    assert result.returncode != 0
    assert arguments[0].partition("=")[0] in result.stderr or "absent.csv" in result.stderr
