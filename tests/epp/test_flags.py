import subprocess
import sys

import click
import pytest

from epp.flags import Duration, DurationRange, double_dashes
from tests.live import PATIENCE_S


@pytest.mark.parametrize(("text", "seconds"), [("50ms", 0.05), ("1m30s", 90.0), ("2s", 2.0), (".5h", 1800.0)])
def test_durations_are_written_as_in_go(text: str, seconds: float) -> None:
    assert Duration().convert(text, None, None) == pytest.approx(seconds)


@pytest.mark.parametrize("text", ["5", "", "1x", "s", "1s ", "-1s"])
def test_an_invalid_duration_is_refused(text: str) -> None:
    with pytest.raises(click.BadParameter, match="not a duration"):
        Duration().convert(text, None, None)


@pytest.mark.parametrize(
    ("text", "bounds"), [("50ms", (0.05, 0.05)), ("50ms-500ms", (0.05, 0.5)), ("1s-1m30s", (1.0, 90.0))]
)
def test_an_interval_is_fixed_or_a_range(text: str, bounds: tuple[float, float]) -> None:
    assert DurationRange().convert(text, None, None) == bounds


@pytest.mark.parametrize("text", ["", "50ms-", "-50ms", "50ms-100ms-1s", "2s-1s"])
def test_an_invalid_range_is_refused(text: str) -> None:
    with pytest.raises(click.BadParameter, match=r"not a duration|longer than the second"):
        DurationRange().convert(text, None, None)


def test_flags_may_begin_with_one_dash() -> None:
    given = ["-grpc-port", "9", "--v=3", "-v", "-1", "-enable-latency-predictor=true"]
    assert double_dashes(given) == ["--grpc-port", "9", "--v=3", "-v", "-1", "--enable-latency-predictor=true"]


def run(*arguments: str) -> "subprocess.CompletedProcess[str]":
    return subprocess.run([sys.executable, "-m", "epp", *arguments], capture_output=True, text=True, timeout=PATIENCE_S)


def test_help_names_flags_and_variables() -> None:
    text = run("--help").stdout
    for name in ("--grpc-port", "--enable-latency-predictor", "PREDICTION_SERVER_URL", "TRAINING_SERVER_URL"):
        assert name in text


@pytest.mark.parametrize(
    ("arguments", "expected"),
    [
        (["--grpc-port", "x"], "--grpc-port"),
        (["--refresh-metrics-interval", "fast"], "--refresh-metrics-interval"),
        ([], "no endpoints"),
        (["--endpoints", "nowhere"], "nowhere"),
        (["--endpoints-file", "/absent.yaml"], "/absent.yaml"),
        (["--endpoints", "127.0.0.1:1", "--config-file", "/absent"], "--config-file"),
        (["--endpoints", "127.0.0.1:1", "--config-text", "kind: X"], "apiVersion"),
        (["--endpoints", "127.0.0.1:1", "--enable-latency-predictor", "true", "--cert-path", "/absent"], "--cert-path"),
        (["--endpoints", "127.0.0.1:1", "--kv-cache-usage-percentage-metric", "a b"], "a b"),
    ],
)
def test_a_bad_start_ends_with_one_clear_line(arguments: list[str], expected: str) -> None:
    result = run(*arguments)
    assert result.returncode != 0
    assert expected in result.stderr.splitlines()[-1]
    assert "Traceback" not in result.stderr
