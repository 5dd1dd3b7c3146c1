"""`headroom report`: figures from the journal, in text and JSON."""

import json
import re
import time
from pathlib import Path

import msgspec
import numpy as np
import pytest
from click.testing import CliRunner

from epp.request.outcome_journal import Row
from epp.request.shadow import Shadow
from headroom.report.calibration import LEVELS, calibrate, levels_of
from headroom.report.command import report
from headroom.report.gain import gain_of
from headroom.report.intervals import estimate
from headroom.report.summary import summarize
from headroom.state import JOURNAL

NOW = time.time()


def row(number: int, **values: object) -> Row:
    given: dict[str, object] = {
        "decided_at": NOW - 1000 + number,
        "model": "m",
        "profile": "slo",
        "endpoint": "a",
        "status": 200,
        "slo_ttft_ms": 100.0,
        "slo_tpot_ms": 10.0,
        "ttft_ms": 50.0,
        "tpot_ms": 5.0,
    }
    return msgspec.convert(given | values, Row)


@pytest.mark.parametrize(
    ("values", "met"),
    [
        ({}, True),
        ({"ttft_ms": 100.1}, False),
        ({"tpot_ms": 10.1}, False),
        ({"tpot_ms": None}, True),
        ({"slo_ttft_ms": None, "ttft_ms": 1e6}, True),
        ({"slo_ttft_ms": None, "slo_tpot_ms": None}, None),
        ({"ttft_ms": None}, None),
        ({"ttft_ms": None, "status": 503}, False),
        ({"ttft_ms": None, "status": 400}, None),
    ],
)
def test_what_it_is_to_meet_objectives(values: dict[str, object], met: bool | None) -> None:
    assert row(0, **values).is_met is met


def test_an_interval_covers_the_mean_as_often_as_it_says() -> None:
    rng = np.random.default_rng(1)
    covered = 0
    for _ in range(400):
        found = estimate((rng.random(200) < 0.7).astype(float))
        assert found.half_width
        covered += abs(found.mean - 0.7) <= found.half_width
    assert 0.92 <= covered / 400 <= 0.98
    assert estimate(np.ones(99)).half_width is None


def test_errors_and_attainment() -> None:
    predicted = {"predicted_ttft_ms": 60.0, "predicted_ttft_median_ms": 40.0}
    rows = [row(n, **predicted, ttft_ms=50.0 if n < 90 else 200.0) for n in range(100)]
    found = summarize(rows, 60)
    assert found.attainment
    assert (found.requests, found.predicted, found.judged, found.attainment.mean) == (100, 100, 100, 0.9)
    assert list(found.errors) == ["ttft"]
    errors = found.errors["ttft"]
    assert (errors.requests, round(errors.median_error), round(errors.within)) == (100, 20, 90)
    assert sum(one.requests for one in found.over_time) == 100
    assert found.gain is None


def test_the_gain_of_what_was_only_in_shadow() -> None:
    rng = np.random.default_rng(2)
    rows = []
    for n in range(400):
        shadow = Shadow("b" if n % 2 else "a", 0.6, 0.9 if n % 2 else 0.6)
        rows.append(row(n, profile="default", ttft_ms=50.0 if rng.random() < 0.6 else 200.0, shadow=shadow))
    gain = summarize(rows, 60).gain
    assert gain
    assert (gain.requests, gain.another, gain.shed, gain.checked) == (400, 0.5, 0, 400)
    assert gain.gain.mean == pytest.approx(0.15, abs=0.03)
    assert gain.gain.half_width is not None
    assert gain.expected == pytest.approx(0.6)
    assert gain.observed == pytest.approx(0.6, abs=0.08)


def test_expectations_are_put_right_by_what_came_of_them() -> None:
    rng = np.random.default_rng(3)
    chances = rng.random(20_000)
    levels = levels_of(chances)
    log_odds = np.log(LEVELS / (1 - LEVELS))
    true = 1 / (1 + np.exp(-(1.0 + 0.5 * log_odds)))
    met = rng.random(len(chances)) < true[levels]
    answers, ended_well = (np.bincount(one, minlength=len(LEVELS)) for one in (levels, levels[met]))
    found = calibrate(answers.astype(float), ended_well.astype(float))
    assert found.intercept == pytest.approx(1.0, abs=0.1)
    assert found.slope == pytest.approx(0.5, abs=0.05)
    nothing = np.zeros(len(LEVELS))
    assert calibrate(nothing, nothing).at_levels() == pytest.approx(LEVELS)


def test_the_gains_interval_covers_the_truth_as_often_as_it_says_although_expectations_are_off() -> None:
    rng = np.random.default_rng(4)
    covered = 0
    for _ in range(100):
        made, other = rng.choice([0.5, 0.9], 400, p=[0.4, 0.6]), np.full(400, 0.9)
        # Requests expected to be in time as often as not are so in 80 % of the cases; the others always but for 2 %.
        met = rng.random(400) < np.where(made == 0.5, 0.8, 0.98)
        gain = gain_of(
            [
                row(n, profile="default", ttft_ms=50.0 if met[n] else 200.0, shadow=Shadow("b", made[n], other[n]))
                for n in range(400)
            ]
        )
        assert gain
        assert gain.gain.half_width
        covered += abs(gain.gain.mean - 0.4 * 0.18) <= gain.gain.half_width
    assert covered >= 88


def test_no_more_is_gained_than_was_missed() -> None:
    rows = [row(n, profile="default", shadow=Shadow("b", 0.5, 0.8)) for n in range(400)]
    gain = gain_of(rows)
    assert gain
    assert gain.as_was.mean > 0.99
    assert gain.gain.mean < 0.01


def write(folder: Path, rows: list[Row], more: bytes = b"") -> None:
    text = b"".join(msgspec.json.encode(one) + b"\n" for one in rows)
    (folder / "outcomes-0.jsonl").write_bytes(text + more)


def test_the_command_says_it_in_words_and_in_json(tmp_path: Path) -> None:
    shadow = Shadow("b", 0.5, 0.8)
    rows = [row(n, profile="default", shadow=shadow) for n in range(100)]
    write(tmp_path, rows, b'{"torn": \n{"half')
    said = CliRunner().invoke(report, [str(tmp_path)])
    assert said.exit_code == 0
    assert said.stderr == "1 lines can't be read and are left out\n"
    assert "attainment: 100.0 % ± 0.0 of 100 requests met their objectives" in said.stdout
    assert "another server: 100.0 %; a refusal: 0.0 %" in said.stdout
    assert re.search(r"expected gain: \+0\.[0-9] points ± 0\.[0-9]", said.stdout)
    assert (
        "calibrated: of 100 observed answers, predictions alone expected 50.0 % in time, and 100.0 % were"
        in said.stdout
    )
    figures = json.loads(CliRunner().invoke(report, [str(tmp_path), "--json"]).stdout)
    assert figures["gain"]["requests"] == 100


def test_the_page_needs_nothing_else_and_shows_no_markup_of_others(tmp_path: Path) -> None:
    predicted = {"predicted_ttft_ms": 60.0, "predicted_ttft_median_ms": 40.0}
    write(tmp_path, [row(n, **predicted, profile="<script>" if n else "slo") for n in range(60)])
    file = tmp_path / "report.html"
    said = CliRunner().invoke(report, [str(tmp_path), "--html", str(file)])
    assert said.exit_code == 0
    text = file.read_text()
    assert "60 requests, 60 of them with predictions" in text
    assert text.count("<svg") == 2
    assert "profile &lt;script&gt;: 100.0 %" in text
    assert not re.search(r"<script|(src|href)=\"http", text)


def test_the_folder_of_up_is_taken_as_well(tmp_path: Path) -> None:
    (tmp_path / JOURNAL).mkdir()
    write(tmp_path / JOURNAL, [row(0)])
    assert CliRunner().invoke(report, [str(tmp_path)]).stdout.startswith("1 request, ")


def test_nothing_to_report_is_an_error_that_says_what_to_do(tmp_path: Path) -> None:
    said = CliRunner().invoke(report, [str(tmp_path)])
    assert said.exit_code == 1
    assert "has no request since 24 h ago: headroom up writes there" in said.output
    write(tmp_path, [row(0)])
    assert CliRunner().invoke(report, [str(tmp_path), "--since", "5m"]).exit_code == 1
    assert CliRunner().invoke(report, [str(tmp_path), "--since", "soon"]).exit_code == 2
