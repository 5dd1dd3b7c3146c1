"""Objectives for requests that bring none."""

import json
from pathlib import Path
from typing import Any

import pytest

from epp.exceptions import ConfigError
from epp.request.default_objectives import DefaultObjectives, Wanted, read_default_objectives
from epp.request.parsed import ParsedRequest, RequestReader
from epp.request.tokens import TokenEstimator
from epp.scheduling.plugins.prefix import PrefixParameters
from tests.epp.process import Stream, picker_process
from tests.live import call, until

RULES = """\
objectives:
- model: chat
  headers: {x-tier: gold}
  ttftMs: 200
  tpotMs: 20
- model: chat
  ttftMs: 400
- tpotMs: 100.5
"""


def wanted(model: str = "", rules: str = RULES, **headers: str) -> Wanted:
    given = {name.replace("_", "-"): value for name, value in headers.items()}
    return DefaultObjectives(read_default_objectives(rules)).wanted(model, given)


def test_the_first_rule_that_matches_gives_the_objectives() -> None:
    assert wanted("chat", x_tier="gold") == Wanted(200, 20, is_predicted=True)
    assert wanted("chat", x_tier="Gold") == wanted("chat") == Wanted(400, None, is_predicted=True)
    assert wanted("other", x_tier="gold") == wanted() == Wanted(None, 100.5, is_predicted=True)
    only_chat = RULES.partition("- tpotMs")[0]
    assert wanted("other", only_chat) == Wanted(None, None, is_predicted=False)


@pytest.mark.parametrize("header", ["x_slo_ttft_ms", "x_llm_d_slo_ttft_ms"])
def test_an_objective_of_the_request_s_own_excludes_the_file_s(header: str) -> None:
    assert wanted("chat", **{header: "900"}) == Wanted(900, None, is_predicted=True)
    assert wanted("chat", **{header: "0"}) == Wanted(None, None, is_predicted=False), "it wants none"


def test_a_request_that_names_a_profile_keeps_it() -> None:
    assert not wanted("chat", x_prediction_based_scheduling="false").is_predicted
    assert wanted("chat", x_prediction_based_scheduling="false").ttft_ms == 400
    assert wanted("chat", "objectives: []", x_prediction_based_scheduling="true").is_predicted


def test_without_a_file_only_headers_count() -> None:
    own = {"x-slo-ttft-ms": "900"}
    assert DefaultObjectives().wanted("chat", own) == Wanted(900, None, is_predicted=False)
    assert DefaultObjectives().wanted("chat", {}) == Wanted(None, None, is_predicted=False)


@pytest.mark.parametrize(
    ("text", "error"),
    [
        ("objectives:\n- ttftMs: 0\n", "line 2: $.objectives[0].ttftMs: Expected `float` > 0.0"),
        ("objectives:\n- ttftMs: 100\n- model: chat\n", "line 3: $.objectives[1]: expected ttftMs, tpotMs or both"),
        ("objectives:\n- ttft: 100\n", "line 2: $.objectives[0].ttft: unknown field"),
        (
            "objectives:\n- tpotMs: 1\n  headers: {X-Tier: gold}\n",
            "line 3: $.objectives[0].headers: expected 'x-tier': headers have names in lower case",
        ),
        ("objectives: [", "line 1: $: not YAML: while parsing a flow node"),
        ("", "the configuration is empty"),
    ],
)
def test_a_wrong_file_is_refused_with_its_line(text: str, error: str) -> None:
    with pytest.raises(ConfigError) as raised:
        read_default_objectives(text)
    assert error in str(raised.value)


def parsed(path: str, body: dict[str, Any]) -> ParsedRequest:
    reader = RequestReader(TokenEstimator(), defaults=DefaultObjectives(read_default_objectives(RULES)))
    found = reader.read({":path": path}, json.dumps(body).encode() if body else b"", PrefixParameters())
    assert isinstance(found, ParsedRequest)
    return found


def test_only_requests_for_answers_get_objectives() -> None:
    asked = parsed("/v1/completions", {"model": "chat", "prompt": "hello"}).request
    assert (asked.slo_ttft_ms, asked.slo_tpot_ms, asked.prediction_based) == (400, None, True)
    listed = parsed("/v1/models", {}).request
    assert (listed.slo_ttft_ms, listed.slo_tpot_ms, listed.prediction_based) == (None, None, False)


async def test_a_running_picker_follows_the_file(tmp_path: Path) -> None:
    file = tmp_path / "objectives.yaml"
    file.write_text(RULES)
    with picker_process(tmp_path, "--default-objectives-file", str(file)) as picker:
        async with picker.channel() as channel:

            async def objective() -> Any:
                await Stream(channel).pick()
                return call(f"{picker.url}/debug/decisions?limit=1")[1]["decisions"][0]["slo_tpot_ms"]

            assert await objective() == 100.5
            file.write_text("objectives:\n- tpotMs: 70\n")
            until(lambda: "headroom_epp_config_reloads_total 1.0" in picker.metrics())
            assert await objective() == 70
            file.write_text("objectives: none\n")
            until(lambda: "headroom_epp_config_reload_failures_total 1.0" in picker.metrics())
            assert await objective() == 70
        assert "line 1: $.objectives: Expected `array`, got `str`" in picker.log.read_text()
