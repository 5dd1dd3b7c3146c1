"""Test the study of fresh metrics on short runs: pages by interval and traffic, and the table."""

from functools import cache
from itertools import product

import pytest

from epp.scraping.pace import ScrapeInterval
from lab.evaluation.plan import BASE
from lab.evaluation.studies.freshness import ALONE, DIRECT, TRAFFIC, TWO_PICKERS, Freshness, FreshnessCase, measure
from lab.evaluation.studies.freshness_report import ADAPTIVE, INTERVALS, POLICIES, figures_of, tables

FRESH, OLD = ScrapeInterval(0.05, 0.05), ScrapeInterval(1.0, 1.0)


@cache
def measured(traffic: str, interval: ScrapeInterval) -> Freshness:
    return measure(FreshnessCase("azure-conversation", BASE, traffic, interval, 1), None, 400)


@pytest.mark.parametrize(
    ("traffic", "interval", "pages_per_s"),
    [(ALONE, FRESH, 20.0), (ALONE, OLD, 1.2), (TWO_PICKERS, FRESH, 40.0), (DIRECT, FRESH, 20.0)],
)
def test_each_picker_asks_at_its_interval(traffic: str, interval: ScrapeInterval, pages_per_s: float) -> None:
    assert measured(traffic, interval).pages_per_s == pytest.approx(pages_per_s, rel=0.15)


def test_an_adaptive_interval_is_long_for_one_picker_and_short_for_two() -> None:
    assert measured(ALONE, ADAPTIVE).pages_per_s < 3
    assert measured(TWO_PICKERS, ADAPTIVE).pages_per_s > 30


def test_one_picker_needs_no_fresh_metrics() -> None:
    fresh, adaptive = measured(ALONE, FRESH).goodput_rps, measured(ALONE, ADAPTIVE).goodput_rps
    assert fresh > 80
    assert adaptive > 0.97 * fresh


def test_the_table_has_every_interval_of_each_traffic_over_the_freshest() -> None:
    results = [
        Freshness(FreshnessCase("azure-conversation", policy, traffic, interval, 1), 100.0 - 10 * interval.most_s, 2.0)
        for policy, traffic, interval in product(POLICIES, TRAFFIC, INTERVALS)
    ]
    figures = figures_of(results)
    assert figures["freshness_one_picker_5000_ms_goodput_default"] == pytest.approx(50 / 99.5, abs=1e-4)
    assert figures["freshness_two_pickers_50_ms_500_ms_server_cores"] == pytest.approx(0.028)
    text = tables(figures)
    assert text.count("\n| 5000 ms | 2.0 | 0.028 | 0.503 (0.503 to 0.503) | 0.503 (0.503 to 0.503) |") == len(TRAFFIC)
    assert text.count("\n| 50 ms to 500 ms |") == len(TRAFFIC)
