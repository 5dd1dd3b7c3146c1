import time

from prometheus_client import CollectorRegistry, Histogram, generate_latest
from prometheus_client.parser import text_string_to_metric_families

from epp.metrics import Metrics
from epp.model_metrics import EXPIRY_S, MOST_DETAILED, MOST_MODELS, ModelTable
from epp.model_series import histograms
from tests.epp.clock import Clock


def counts(table: ModelTable, name: str = "inference_model_request_total") -> dict[str, float]:
    """Return the values of a metric on the page, by model."""
    families = text_string_to_metric_families("".join(table.pages()))
    samples = [sample for family in families for sample in family.samples if sample.name == name]
    return {sample.labels["model_name"]: sample.value for sample in samples}


def use(table: ModelTable, *names: str) -> None:
    for name in names:
        metrics = table.model(name, name)
        metrics.requests.inc()
        metrics.duration_s.observe(1.0)


DURATIONS = "inference_model_request_duration_seconds_count"


def test_a_page_stays_small_whatever_clients_call_their_models() -> None:
    """A thousand names made a page of 27 MB, which took 6 s to write."""
    metrics = Metrics()
    use(metrics.models, *(f"m{index}" for index in range(3 * MOST_MODELS)))
    for index in range(10_000):
        metrics.models.error(f"m{index % 2000}", f"m{index % 2000}", str(100 + index % 500))
    page = metrics.page()
    assert len(page) < 3 << 20
    assert page.count(b"\n") < 25_000
    assert len(counts(metrics.models)) == MOST_MODELS
    assert len(counts(metrics.models, DURATIONS)) == MOST_DETAILED + 1


async def test_a_page_is_written_in_turns() -> None:
    metrics = Metrics()
    use(metrics.models, *(f"m{index}" for index in range(MOST_MODELS)))
    pieces = [piece.count("\n") for piece in metrics.models.pages()]
    assert max(pieces) < 4000
    assert await metrics.page_in_turns() == metrics.page()


def test_busy_models_have_all_series_whoever_came_first() -> None:
    clock = Clock()
    table = ModelTable(CollectorRegistry(), clock)
    use(table, *(f"invented{index}" for index in range(200)))
    use(table, *["busy"] * 8)
    use(table, "busy")
    assert counts(table, DURATIONS)["busy"] >= 1
    assert counts(table)["busy"] == 9
    assert len(counts(table, DURATIONS)) == MOST_DETAILED + 1


def test_series_without_requests_expire() -> None:
    clock = Clock()
    table = ModelTable(CollectorRegistry(), clock)
    use(table, "old", "running")
    table.model("running", "running").running.inc()
    table.error("old", "old", "500")
    clock.now_s += EXPIRY_S + 1
    use(table, "new")
    assert set(counts(table)) == {"running", "new"}
    assert '"old"' not in "".join(table.pages())


def test_an_unused_name_makes_room_for_another() -> None:
    clock = Clock()
    table = ModelTable(CollectorRegistry(), clock)
    use(table, *(f"invented{index}" for index in range(MOST_MODELS + 5)))
    clock.now_s += 61
    use(table, "real", "real")
    assert counts(table)["real"] == 2
    assert len(counts(table)) == MOST_MODELS


def test_lines_are_those_of_the_library() -> None:
    ours, registry = histograms("h_seconds", "A text", (0.1, 1, 5), ("b", "a")), CollectorRegistry()
    theirs = Histogram("h_seconds", "A text", ("b", "a"), buckets=(0.1, 1, 5), registry=registry)
    for value in (0.05, 0.1, 2, 7, 1e9):
        ours.at('x"\\\n', "y").observe(value)
        theirs.labels('x"\\\n', "y").observe(value)
    assert samples(ours.page()) == samples(generate_latest(registry).decode())
    assert [line for line in ours.page().splitlines() if "_created" not in line] == [
        line for line in generate_latest(registry).decode().splitlines() if "_created" not in line
    ]


def samples(page: str) -> list[tuple[str, dict[str, str], float]]:
    """Return the samples of a page, with the times of creation to the minute."""
    found = [sample for family in text_string_to_metric_families(page) for sample in family.samples]
    ages = [round(sample.value - time.time(), -2) if "_created" in sample.name else sample.value for sample in found]
    return [(sample.name, sample.labels, age) for sample, age in zip(found, ages, strict=True)]
