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
    assert len(page) < 4 << 20
    assert page.count(b"\n") < 40_000
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


def test_latencies_have_llm_ds_names_as_well() -> None:
    table = ModelTable(CollectorRegistry())
    metrics = table.model("in", "out")
    for number, latency in enumerate((metrics.ttft, metrics.tpot), start=1):
        latency.observed_s.observe(0.1 * number)
        latency.predicted_s.observe(0.2 * number)
        latency.prediction_duration_s.observe(0.003)
        latency.violations.inc(number)
    metrics.normalised_tpot_s.observe(0.02)
    told = {
        (sample.name, sample.labels.get("type")): (sample.value, sample.labels)
        for family in text_string_to_metric_families("".join(table.pages()))
        for sample in family.samples
    }
    model = {"model_name": "in", "target_model_name": "out"}
    by = {"plugin_name": "predicted-latency-producer", "plugin_type": "predicted-latency-producer"}
    histograms_told = (
        ("llm_d_epp_request_ttft_seconds", 0.1, model),
        ("llm_d_epp_request_streaming_tpot_seconds", 0.2, model),
        ("llm_d_epp_request_ntpot_seconds", 0.02, model),
        ("llm_d_epp_request_predicted_ttft_seconds", 0.2, model | by),
        ("llm_d_epp_request_predicted_tpot_seconds", 0.4, model | by),
        ("llm_d_epp_request_ttft_prediction_duration_seconds", 0.003, model | by),
        ("inference_objective_request_ttft_seconds", 0.1, model),
        ("inference_objective_request_predicted_ttft_seconds", 0.2, model),
        ("inference_objective_request_predicted_tpot_seconds", 0.4, model),
        ("inference_objective_normalized_time_per_output_token_seconds", 0.02, model),
    )
    expected = {(f"{name}_sum", None): (total, labels) for name, total, labels in histograms_told} | {
        (f"{name}_count", None): (1, labels) for name, _, labels in histograms_told
    }
    assert {key: told[key] for key in expected} == expected
    violations = {key: value for key, value in told.items() if "slo_violation_total" in key[0] and key[1]}
    assert violations == {
        ("llm_d_epp_request_slo_violation_total", "ttft"): (1, model | by | {"type": "ttft"}),
        ("llm_d_epp_request_slo_violation_total", "tpot"): (2, model | by | {"type": "tpot"}),
        ("inference_objective_request_slo_violation_total", "ttft"): (1, model | {"type": "ttft"}),
        ("inference_objective_request_slo_violation_total", "tpot"): (2, model | {"type": "tpot"}),
    }


def test_names_of_models_that_are_gone_go_from_llm_ds_names_too() -> None:
    clock = Clock()
    table = ModelTable(CollectorRegistry(), clock)
    use(table, "old")
    assert counts(table, "llm_d_epp_request_ntpot_seconds_count") == {"old": 0}
    clock.now_s += EXPIRY_S + 1
    assert not counts(table, "llm_d_epp_request_ntpot_seconds_count")
