import numpy as np

from lab.bench.trainer.wrong_rows import law_samples
from model_store import ROW_NAMES
from model_store.rows import LONGEST_MS
from trainer.quarantine import Quarantine, SourceShares
from trainer.wire import Samples

RUNNING = ROW_NAMES.index("num_request_running")


class Clock:
    def __init__(self) -> None:
        self.now_s = 0.0

    def __call__(self) -> float:
        return self.now_s


def test_impossible_rows_are_set_aside_and_can_be_looked_at() -> None:
    rows = law_samples(1000, 0)
    features, ttft_ms = rows.features.copy(), rows.ttft_ms.copy()
    ttft_ms[:300] = LONGEST_MS * 2
    features[300, RUNNING] = 1e12
    quarantine = Quarantine(SourceShares(0.5))
    kept = quarantine.sift(Samples(features, ttft_ms, rows.tpot_ms), "10.0.0.1")
    assert len(kept) == 699
    assert quarantine.counts == {"impossible": 301}
    newest = quarantine.newest()
    assert len(newest) == 200
    assert (newest[0]["reason"], newest[0]["source"]) == ("impossible", "10.0.0.1")
    assert newest[0]["num_request_running"] > 1e11
    assert newest[1]["actual_ttft_ms"] == LONGEST_MS * 2


def test_one_source_of_several_has_at_most_its_share() -> None:
    shares = SourceShares(0.5, Clock())
    assert [shares.admit(name, 2000) for name in ("a", "b")] == [2000, 2000]
    assert shares.admit("flood", 100_000) == 4000
    assert shares.admit("flood", 1) == 0
    assert shares.admit("a", 100) == 100


def test_few_sources_have_no_limit() -> None:
    shares = SourceShares(0.5, Clock())
    assert shares.admit("a", 10) == 10
    assert shares.admit("b", 100_000) == 100_000
    unlimited = SourceShares(1.0, Clock())
    assert [unlimited.admit(name, 50_000) for name in "abc"] == [50_000] * 3


def test_a_share_is_measured_over_the_last_minutes() -> None:
    clock = Clock()
    shares = SourceShares(0.5, clock)
    for name in ("a", "b"):
        shares.admit(name, 2000)
    shares.admit("c", 4000)
    clock.now_s = 61
    assert shares.admit("c", 10) == 0
    clock.now_s = 200
    assert shares.admit("c", 10) == 10


def test_sources_are_counted_up_to_a_bound() -> None:
    shares = SourceShares(0.5, Clock())
    for number in range(2000):
        shares.admit(str(number), 1)
    assert len(shares._rows) <= 1001


def test_all_features_of_a_row_are_checked_and_unknown_ones_pass() -> None:
    rows = law_samples(10, 0)
    assert np.isnan(rows.features).any()
    assert len(Quarantine(SourceShares(1)).sift(rows, "")) == 10
