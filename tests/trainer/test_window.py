import asyncio
import subprocess
import sys

import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from model_store import ROW_FEATURES
from tests.live import PATIENCE_S
from trainer.window import ROW, Ring, Structured, TargetWindow, Window, bucket_numbers, row_hashes
from trainer.wire import Matrix, Samples

WIDTH = len(ROW_FEATURES)


def rows(count: int, seed: int = 0, waiting: float | None = None) -> Matrix:
    matrix = np.random.default_rng(seed).random((count, WIDTH), dtype=np.float32)
    if waiting is not None:
        matrix[:, 2] = waiting
    return matrix


def latencies(count: int) -> Matrix:
    return np.arange(1, count + 1, dtype=np.float32)


@given(st.integers(1, 200), st.lists(st.integers(0, 90), max_size=20))
def test_a_ring_keeps_the_newest_in_order(capacity: int, batches: list[int]) -> None:
    ring, count = Ring(capacity), 0
    for size in batches:
        ring.extend(arrived(count, size))
        count += size
    assert ring.rows()["arrival"].tolist() == list(range(max(0, count - capacity), count))
    assert ring.size == min(capacity, count)


@given(st.integers(1, 100), st.integers(0, 150), st.integers(0, 200), st.integers(0, 150))
def test_a_ring_accepts_rows_after_forgetting_some(capacity: int, first: int, forgotten: int, then: int) -> None:
    ring = Ring(capacity)
    ring.extend(arrived(0, first))
    ring.forget_before(forgotten)
    ring.extend(arrived(first, then))
    kept = [n for n in range(max(0, first - capacity), first) if n >= forgotten] + list(range(first, first + then))
    assert ring.rows()["arrival"].tolist() == kept[-capacity:]


def arrived(first: int, count: int) -> Structured:
    batch = np.zeros(count, dtype=ROW)
    batch["arrival"] = first + np.arange(count)
    return batch


async def test_every_row_is_trained_on_or_held_out_and_never_both() -> None:
    window = TargetWindow(per_bucket=10_000, holdout_share=0.2, holdout_rows=10_000)
    window.add(rows(5000), latencies(5000))
    data = await window.data()
    trained, held_out = set(data.train.y.tolist()), set(data.holdout.y.tolist())
    assert not trained & held_out
    assert len(trained) + len(held_out) == 5000
    assert 800 < len(held_out) < 1200


async def test_a_repeated_row_stays_on_its_side() -> None:
    window = TargetWindow(10_000, 0.5, 10_000)
    for _ in range(3):
        window.add(rows(100), latencies(100))
    data = await window.data()
    assert not set(data.train.y.tolist()) & set(data.holdout.y.tolist())


def test_the_split_is_the_same_in_every_process() -> None:
    code = "import numpy as np; from trainer.window import row_hashes; print(row_hashes(np.eye(3, dtype=np.float32)))"
    output = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, check=True, timeout=PATIENCE_S
    ).stdout
    assert output.strip() == str(row_hashes(np.eye(3, dtype=np.float32)))


def test_a_busy_bucket_does_not_push_out_a_rare_one() -> None:
    window = TargetWindow(per_bucket=50, holdout_share=1e-9, holdout_rows=10)
    window.add(rows(3, seed=1, waiting=20), latencies(3))
    window.add(rows(20_000, seed=2, waiting=0), latencies(20_000))
    rare = sum(count for (queue, _, _), count in window.bucket_counts().items() if queue == 4)
    assert rare == 3
    assert max(window.bucket_counts().values()) == 50


def test_buckets_equal_those_of_the_llm_d_training_server() -> None:
    matrix = np.zeros((7, WIDTH), dtype=np.float32)
    matrix[:, 2] = [0, 1, 2, 3, 5, 10, 11]
    assert (bucket_numbers(matrix) // 80).tolist() == [0, 1, 1, 2, 2, 3, 4]
    edges = np.zeros((3, WIDTH), dtype=np.float32)
    edges[:, 0], edges[:, 5] = [0, 0.99, 1.0], [0, 0.99, 1.0]
    assert bucket_numbers(edges).tolist() == [0, 79, 79]


def test_a_latency_of_zero_is_not_a_sample_of_that_target() -> None:
    window = Window(100, 0.5, 100)
    ttft, tpot = np.array([1, 0, 2], dtype=np.float32), np.array([0, 0, 3], dtype=np.float32)
    window.add(Samples(rows(3), ttft, tpot))
    counts = {name: target.train_count + target.holdout_count for name, target in window.targets.items()}
    assert counts == {"ttft": 2, "tpot": 1}
    assert window.version == 3


async def test_rows_that_arrive_during_a_copy_are_not_in_it() -> None:
    window = TargetWindow(per_bucket=100_000, holdout_share=0.1, holdout_rows=10_000)
    window.add(rows(50_000), latencies(50_000))
    copying = asyncio.create_task(window.data())
    await asyncio.sleep(0)
    window.add(rows(5000, seed=1), latencies(5000))
    data = await copying
    assert len(data.train) + len(data.holdout) == 50_000
    assert len((await window.data()).train) > len(data.train)


async def test_old_rows_are_dropped_only_from_buckets_with_enough_new_rows() -> None:
    window = TargetWindow(per_bucket=10_000, holdout_share=1e-9, holdout_rows=10_000)
    alike, other = np.zeros((600, WIDTH), dtype=np.float32), np.zeros((600, WIDTH), dtype=np.float32)
    other[:, 2] = 20
    window.add(alike, latencies(600))
    window.add(other, latencies(600))
    window.add(alike, latencies(600))
    window.forget_replaced(1200)
    data = await window.data()
    assert sorted(data.train.arrival) == list(range(600, 1800))
    window.forget_replaced(1800)
    assert window.train_count == 1200
