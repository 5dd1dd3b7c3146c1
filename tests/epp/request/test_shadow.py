"""In shadow, prediction only says what it would have chosen, and the journal has each request for reports."""

import dataclasses
import json
import os
from pathlib import Path
from typing import Any

import msgspec
import pytest

from epp.exceptions import ConfigError
from epp.request.decisions import explain
from epp.request.director import Director
from epp.request.outcome_journal import OutcomeJournal, Row
from epp.scheduling.configuration.config import DEFAULT_CONFIG
from tests.epp.parts import CHAT, FixedPredictions, Gateway, build_director, set_headers
from tests.epp.process import picker_process
from tests.epp.scheduling.configuration.test_config import QUEUE
from tests.live import until

TOKEN = b'data: {"choices":[{"delta":{"content":"a"}}]}\n\n'
# The first endpoint is too slow for the objectives.
SLOW_AND_FAST = FixedPredictions([(900.0, 90.0), (100.0, 10.0)])


async def serve(director: Director, **headers: str) -> str:
    """Serve a request to its end; return the endpoint's address."""
    gateway = Gateway(director)
    await gateway.request_headers(**headers)
    (answer,) = await gateway.request_body(CHAT)
    await gateway.response_headers()
    await gateway.response_body(TOKEN)
    await gateway.response_body(TOKEN, end_of_stream=True)
    gateway.exchange.close()
    return set_headers(answer)["x-gateway-destination-endpoint"]


def shadow_director(*, is_shadow: bool = True) -> Director:
    director = build_director(latency=SLOW_AND_FAST)
    director.is_shadow = is_shadow
    # The profile default prefers the empty queue, which is that of the slow endpoint.
    director.books.pool.record_metrics(1, 50, 50, 0.5)
    return director


def keep(director: Director, journal: OutcomeJournal) -> None:
    outcomes = dataclasses.replace(director.books.outcomes, journal=journal)
    director.books = dataclasses.replace(director.books, outcomes=outcomes)


async def routed(director: Director, **headers: str) -> tuple[str, dict[str, Any]]:
    objectives = {"x_prediction_based_scheduling": "true", "x_slo_ttft_ms": "300", "x_slo_tpot_ms": "30"}
    address = await serve(director, **(objectives | headers))
    (record,) = director.books.decisions.newest(1)
    return address, explain(record)


async def test_prediction_does_not_decide_but_says_what_it_would_have_chosen() -> None:
    address, found = await routed(shadow_director())
    assert (address, found["profile"], found["wanted_profile"]) == ("10.0.0.0:8000", "default", "default")
    shadow = found["shadow"]
    assert shadow["endpoint"] == "pod-1"
    assert shadow["chance_made"] < 0.01
    assert shadow["chance"] > 0.9
    assert found["predicted"]["ttft_ms"] == 900, "that of the endpoint which was chosen"


async def test_without_the_flag_prediction_decides() -> None:
    address, found = await routed(shadow_director(is_shadow=False))
    assert (address, found["profile"], found["shadow"]) == ("10.0.0.1:8000", "slo", None)


async def test_a_request_that_wants_no_prediction_has_no_shadow() -> None:
    _, found = await routed(shadow_director(), x_prediction_based_scheduling="false")
    assert (found["profile"], found["shadow"]) == ("default", None)


async def test_the_journal_has_a_line_for_each_ended_request(tmp_path: Path) -> None:
    director = shadow_director()
    journal = OutcomeJournal(tmp_path)
    keep(director, journal)
    for _ in range(3):
        await routed(director)
    assert not (tmp_path / "outcomes-0.jsonl").read_bytes(), "nothing is written while a request waits"
    journal.flush()
    lines = (tmp_path / "outcomes-0.jsonl").read_bytes().splitlines()
    rows = [msgspec.json.decode(line, type=Row) for line in lines]
    assert [(row.endpoint, row.status, row.slo_ttft_ms, row.predicted_ttft_ms) for row in rows] == [
        ("pod-0", 200, 300, 900)
    ] * 3
    assert all(row.ttft_ms is not None and row.shadow and row.shadow.endpoint == "pod-1" for row in rows)
    assert not {"hello", "request_id", "headers"} & set(json.loads(lines[0]))


async def test_a_full_file_is_set_aside_and_a_disk_that_fails_costs_only_lines(tmp_path: Path) -> None:
    director = shadow_director()
    journal = OutcomeJournal(tmp_path, most_bytes=1)
    keep(director, journal)
    for _ in range(2):
        await routed(director)
        journal.flush()
    assert os.listdir(tmp_path) == ["outcomes-0.jsonl.1"]
    (tmp_path / "outcomes-0.jsonl").mkdir()
    await routed(director)
    journal.flush()
    assert journal.dropped == 1


def test_a_folder_that_can_t_be_written_is_an_error_at_the_start(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    with pytest.raises(ConfigError, match="--outcome-journal: can't write"):
        OutcomeJournal(tmp_path / "file" / "folder")


def test_a_configuration_that_can_t_do_without_prediction_is_refused_also_later(tmp_path: Path) -> None:
    file = tmp_path / "config.yaml"
    file.write_text(DEFAULT_CONFIG)
    with picker_process(tmp_path, "--shadow", "--config-file", str(file)) as picker:
        file.write_text(QUEUE)
        until(lambda: "headroom_epp_config_reload_failures_total 1.0" in picker.metrics())
        assert "--shadow needs a configuration with slo-aware-profile-handler" in picker.log.read_text()
