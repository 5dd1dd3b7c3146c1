"""A server is measured over HTTP, and one that can't be measured is refused in one line."""

import random
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from click.testing import CliRunner
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import JSONResponse, PlainTextResponse, Response
from starlette.routing import Route

from headroom.processes.ports import free_port
from lab.calibration.exceptions import MeasureError
from lab.calibration.server.asks import Ask, random_prompt
from lab.calibration.server.client import HttpServer
from lab.calibration.server.command import calibrate
from simulator.app import create_app
from simulator.config import Config
from simulator.hardware import PRESETS, hardware
from tests.live import live


@pytest.fixture(scope="module")
def url() -> Iterator[str]:
    config = Config(host="", port=0, name="pod", model="m", hardware=PRESETS["fast"], speed_factor=40.0)
    with live(create_app(config)) as running:
        yield running


async def test_tokens_are_timed_and_counted_by_the_server(url: str) -> None:
    async with HttpServer(url, "") as server:
        assert (await server.choose_model())["max_model_len"] == 32_768
        before = await server.page()
        prompt = random_prompt(random.Random(1), 100)
        whole, left = await server.run([Ask(prompt, 12), Ask(prompt, 5_000, leave_s=0.2)])
        assert (before.num_blocks, before.block_tokens, before.has_prefix_cache) == (3_072, 16, True)
        assert whole.prompt_tokens == 100
        assert whole.tokens[-1] == 12
        assert 0 < whole.sent_s < whole.times[0] <= whole.times[-1]
        assert not left.tokens or left.tokens[-1] < 5_000


async def test_a_model_that_is_not_served_is_refused(url: str) -> None:
    async with HttpServer(url, "other") as server:
        with pytest.raises(MeasureError, match=r"doesn't serve 'other', but m$"):
            await server.choose_model()


@pytest.mark.slow
def test_a_calibration_is_written_and_can_be_read(url: str, tmp_path: Path) -> None:
    out, figures = tmp_path / "own.csv", tmp_path / "figures.json"
    limits = ["--max-num-seqs", "32", "--max-num-batched-tokens", "1024", "--most-batch", "4"]
    flags = [*limits, "--minutes", "0.1", "--max-noise", "1000", "--out", str(out), "--json", str(figures)]
    done = CliRunner().invoke(calibrate, [url, *flags])
    assert done.exit_code == 0, done.output
    read = hardware(str(out))
    assert (read.num_blocks, read.block_tokens, read.max_num_batched_tokens) == (3_071, 16, 1_024)
    assert '"noise_median_pct"' in figures.read_text()


def served(answer: Callable[[], Response]) -> Starlette:
    """Return a server with one model and an idle engine that gives this answer to every completion."""

    async def models(request: Request) -> Response:
        return JSONResponse({"data": [{"id": "m", "max_model_len": 100}]})

    async def metrics(request: Request) -> Response:
        gauges = "vllm:num_requests_running 0\nvllm:num_requests_waiting 0\nvllm:request_success_total 0\n"
        return PlainTextResponse(f'{gauges}vllm:cache_config_info{{block_size="16",num_gpu_blocks="64"}} 1\n')

    async def complete(request: Request) -> Response:
        return answer()

    completions = Route("/v1/completions", complete, methods=["POST"])
    return Starlette(routes=[Route("/v1/models", models), Route("/metrics", metrics), completions])


def events(*texts: str) -> Callable[[], Response]:
    return lambda: Response("".join(f"data: {text}\n\n" for text in texts), media_type="text/event-stream")


@pytest.mark.parametrize(
    ("answer", "message"),
    [
        (events('{"choices":[{"text":"a"}]}', "[DONE]"), "sends no usage in streams"),
        (events('{"usage":{"completion_tokens":1}}', "[DONE]"), "asked for 24 tokens, got 1: the server ignores"),
        (events('{"error":{"message":"full"}}'), 'ended an answer with {"error":{"message":"full"}}'),
        (lambda: Response("no key", 401), r"refuses the API key \(401\): --api-key-file"),
        (lambda: Response("no such path", 404), "answered with status 404: no such path"),
    ],
)
def test_a_server_that_cannot_be_measured_is_refused(
    answer: Callable[[], Response], message: str, tmp_path: Path
) -> None:
    out = tmp_path / "own.csv"
    with live(served(answer)) as url:
        done = CliRunner().invoke(calibrate, [url, "--out", str(out)])
    assert done.exit_code == 1
    [line] = [line for line in done.stderr.splitlines() if line.startswith("Error: ")]
    assert not out.exists()
    with pytest.raises(AssertionError, match=message):
        raise AssertionError(line)


def test_a_server_that_is_not_there_is_refused() -> None:
    done = CliRunner().invoke(calibrate, [f"http://127.0.0.1:{free_port()}"])
    assert done.exit_code == 1
    assert "can't reach http://127.0.0.1:" in done.stderr


def test_a_server_without_tls_is_refused_if_asked_for_it(url: str) -> None:
    done = CliRunner().invoke(calibrate, [url.replace("http:", "https:")])
    assert done.exit_code == 1
    assert "doesn't speak TLS as asked" in done.stderr


def test_an_empty_key_is_refused(tmp_path: Path) -> None:
    (tmp_path / "key").write_text("\n")
    done = CliRunner().invoke(calibrate, ["http://127.0.0.1:1", "--api-key-file", str(tmp_path / "key")])
    assert "holds no API key" in done.stderr
