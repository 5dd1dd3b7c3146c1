"""Test the state that worker processes share: prefix rings, and one metrics page."""

import mmap

import numpy as np
from hypothesis import given, settings
from hypothesis import strategies as st
from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram, generate_latest
from prometheus_client.parser import text_string_to_metric_families

from epp.pool.prefix_index import PrefixIndex
from epp.workers.prefix_ring import PrefixRings, rings_bytes
from epp.workers.siblings import merge_in_pieces, merge_pages

hashes = st.lists(st.integers(1, 2**64 - 1), min_size=1, max_size=40, unique=True)


@settings(max_examples=30)
@given(st.lists(st.tuples(st.integers(0, 9), hashes), max_size=30))
def test_a_worker_learns_the_prefixes_that_another_worker_dispatched(sent: list[tuple[int, list[int]]]) -> None:
    memory = mmap.mmap(-1, rings_bytes(2))
    writer, reader = PrefixRings(memory, 0), PrefixRings(memory, 1)
    known, learnt = PrefixIndex(10_000), PrefixIndex(10_000)
    for slot, blocks in sent:
        known.add(slot, blocks)
        writer.write(slot, blocks)
    reader.read_into(learnt)
    reader.read_into(learnt)
    for _, blocks in sent:
        slots = np.arange(10)
        np.testing.assert_array_equal(known.scores(blocks, slots), learnt.scores(blocks, slots))


def test_a_reader_that_was_overtaken_skips_to_the_newest_entries() -> None:
    memory = mmap.mmap(-1, rings_bytes(2))
    writer, reader = PrefixRings(memory, 0), PrefixRings(memory, 1)
    for number in range(1000):
        writer.write(1, [number * 100 + i + 1 for i in range(100)])
    index = PrefixIndex(10_000)
    reader.read_into(index)
    assert len(index) == 0
    writer.write(2, [7, 8])
    reader.read_into(index)
    assert index.scores([7, 8], np.arange(3)).tolist() == [0, 0, 1]


def page(requests: int, in_flight: int, seconds: list[float]) -> str:
    registry = CollectorRegistry()
    Counter("requests_total", "r", ("model",), registry=registry).labels('m"\\').inc(requests)
    Gauge("headroom_epp_in_flight_requests", "f", registry=registry).set(in_flight)
    Gauge("inference_pool_ready_pods", "p", registry=registry).set(7)
    histogram = Histogram("took_seconds", "t", buckets=(1, 2), registry=registry)
    for value in seconds:
        histogram.observe(value)
    return generate_latest(registry).decode()


def test_the_workers_pages_are_merged_into_one() -> None:
    together = merge_pages([page(2, 1, [0.5]), page(3, 4, [1.5, 5.0])]).decode()
    samples = {
        (sample.name, *sample.labels.values()): sample.value
        for family in text_string_to_metric_families(together)
        for sample in family.samples
    }
    assert samples["requests_total", 'm"\\'] == 5
    assert samples["headroom_epp_in_flight_requests",] == 5
    assert samples["inference_pool_ready_pods",] == 7
    assert [samples["took_seconds_bucket", le] for le in ("1.0", "2.0", "+Inf")] == [1, 2, 3]
    assert (samples["took_seconds_sum",], samples["took_seconds_count",]) == (7, 3)


def test_pages_are_merged_in_turns() -> None:
    """A thousand models made a page whose merging held up the event loop for seconds."""
    registry = CollectorRegistry()
    counter = Counter("requests_total", "r", ("model",), registry=registry)
    for index in range(5_000):
        counter.labels(f"m{index}").inc()
    lines = generate_latest(registry).decode()
    pieces = list(merge_in_pieces([lines, lines]))
    assert len(pieces) > 20
    assert "".join(pieces).count(" 2.0\n") == 5_000
