"""A decision of a picker is explained on the terminal, in words or as JSON."""

import asyncio
import json
import re
from collections.abc import Iterator

import numpy as np
import pytest
from click.testing import CliRunner, Result

from epp.app import create_app
from epp.prediction.features import FeatureColumns
from epp.request.director import Director
from epp.request.wording import in_words
from epp.scheduling.snapshot import Predictions
from headroom.explain import explain
from headroom.processes.ports import free_port
from tests.epp.parts import CHAT, Gateway, build_director
from tests.live import live

SLOS = {"x_prediction_based_scheduling": "true", "x_slo_ttft_ms": "400", "x_slo_tpot_ms": "20"}
TEXT = b'data: {"choices":[{"delta":{"content":"a"}}]}\n\n'


class OneIsSlow:
    """A latency client for which the second endpoint misses both objectives."""

    def predict(self, columns: FeatureColumns) -> Predictions:
        count = columns.shape[1]
        ttft_ms, tpot_ms = np.resize([100.0, 1500.0], count), np.resize([10.0, 30.0], count)
        return Predictions(ttft_ms, tpot_ms, 7, "remote", ttft_ms / 2, tpot_ms / 2)

    async def close(self) -> None: ...


async def serve(director: Director, request_id: str, body: bytes = CHAT) -> None:
    gateway = Gateway(director)
    await gateway.request_headers(x_request_id=request_id, **SLOS)
    await gateway.request_body(body)
    await gateway.response_headers()
    await gateway.response_body(TEXT)
    gateway.exchange.close()


@pytest.fixture(scope="module")
def url() -> Iterator[str]:
    director = build_director(latency=OneIsSlow())
    for request_id in ("first", "x" * 1000, "latest"):
        asyncio.run(serve(director, request_id))
    director.is_shadow = True
    asyncio.run(serve(director, "shadow"))
    director.is_shadow = False
    hostile = CHAT.replace(b'"m"', rb'"\u001b[31mred"')
    asyncio.run(serve(director, "hostile", hostile))
    with live(create_app(director.books.pool, director.books.outcomes.metrics, director.books.decisions)) as running:
        yield running


def run(*arguments: str) -> Result:
    return CliRunner().invoke(explain, arguments)


def test_a_decision_is_told_in_words(url: str) -> None:
    done = run("first", "--url", url)
    assert done.exit_code == 0, done.output
    lines = done.stdout.splitlines()
    assert lines[0].startswith("Request first for m, ")
    assert lines[1] == "Objectives: TTFT 400 ms, TPOT 20 ms"
    assert "It went to pod-0 (10.0.0.0:8000) by profile slo." in lines
    assert "Predicted (remote, generation 7):" in lines
    assert "  TTFT 100 ms, 300 ms within the objective (half are below 50 ms)" in lines
    [chosen] = [line for line in lines if line.startswith("->")]
    [other] = [line for line in lines if line.strip().startswith("pod-1")]
    assert chosen.split()[1] == "pod-0"
    assert "1.50 s" in other
    assert "Its response had status 200." in lines


def test_a_decision_without_prediction_says_what_prediction_would_have_chosen(url: str) -> None:
    [line] = [line for line in run("shadow", "--url", url).stdout.splitlines() if "rediction" in line]
    # Both endpoints are alike for the profile default, which draws one.
    assert re.fullmatch(
        "Prediction would have chosen the same; its chance to meet its objectives was 9[0-9] %."
        "|By prediction it would have gone to pod-0, with a chance of 9[0-9] % instead of [0-9]+ %.",
        line,
    )


@pytest.mark.parametrize(
    ("shadow", "said"),
    [
        ({"endpoint": "b", "chance_made": 0.1, "chance": 0.9}, "gone to b, with a chance of 90 % instead of 10 %"),
        ({"endpoint": "a", "chance_made": 0.1, "chance": 0.1}, "chosen the same"),
        (
            {"endpoint": "", "chance_made": 0.1, "chance": 0.0},
            "been refused: its chance to meet its objectives was 10 %",
        ),
    ],
)
def test_the_words_for_a_shadow(url: str, shadow: dict[str, object], said: str) -> None:
    decision = json.loads(run("shadow", "--url", url, "--json").stdout) | {"shadow": shadow, "endpoint": "a"}
    assert any(said in line for line in in_words(decision))


def test_the_newest_request_is_explained_without_an_id(url: str) -> None:
    assert run("--url", url).stdout.startswith("Request hostile ")


def test_an_id_that_the_picker_shortened_is_found(url: str) -> None:
    assert run("x" * 1000, "--url", url).exit_code == 0


def test_json_is_what_the_picker_tells(url: str) -> None:
    decision = json.loads(run("latest", "--url", url, "--json").stdout)
    assert (decision["request_id"], decision["endpoint"]) == ("latest", "pod-0")


def test_a_clients_text_does_not_reach_the_terminal(url: str) -> None:
    stdout = run("hostile", "--url", url).stdout
    assert "[31mred" in stdout
    assert "\x1b" not in stdout


def test_an_unknown_request_is_said_to_be_unknown(url: str) -> None:
    done = run("other", "--url", url)
    assert done.exit_code == 1
    assert "remembers no request 'other' among its latest; --debug-decisions says how many" in done.stderr


@pytest.mark.parametrize(
    ("at", "status", "message"),
    [
        ("http://127.0.0.1:{port}", 1, "can't reach the picker at http://127.0.0.1:"),
        ("ftp://127.0.0.1", 2, "expected http://HOST:PORT, got ftp://127.0.0.1"),
        ("{url}/nowhere", 1, "answered with status 404"),
    ],
)
def test_a_picker_that_does_not_answer_is_named(url: str, at: str, status: int, message: str) -> None:
    done = run("first", "--url", at.format(url=url, port=free_port()))
    assert done.exit_code == status
    assert message in done.stderr
