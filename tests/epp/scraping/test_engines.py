"""Test that the load is read from the pages of each engine."""

import pytest

from epp.exceptions import ConfigError, ScrapeError
from epp.scheduling.snapshot import NO_ADAPTERS, Adapters
from epp.scraping.engines import configured_engine, engines_to_try
from epp.scraping.page_reader import Load, PageReader
from tests.epp.scraping.pages import vllm_page

# Extracts of the servers' own pages: the lines to read, and some lines around them.
PAGES = {
    "vllm": vllm_page(3, 5, 0.25, histograms=1),
    "vllm before 0.10": vllm_page(3, 5, 0.25, histograms=1).replace(b"kv_cache_usage_perc", b"gpu_cache_usage_perc"),
    "sglang": b"""\
# TYPE sglang:num_running_reqs gauge
sglang:num_running_reqs{engine_type="unified",model_name="m",tp_rank="0"} 5.0
# TYPE sglang:token_usage gauge
sglang:token_usage{engine_type="unified",model_name="m",tp_rank="0"} 0.25
# TYPE sglang:num_queue_reqs gauge
sglang:num_queue_reqs{engine_type="unified",model_name="m",tp_rank="0"} 3.0
""",
    "triton-tensorrt-llm": b"""\
# TYPE nv_trt_llm_request_metrics gauge
nv_trt_llm_request_metrics{model="tensorrt_llm",request_type="context",version="1"} 1
nv_trt_llm_request_metrics{model="tensorrt_llm",request_type="scheduled",version="1"} 5
nv_trt_llm_request_metrics{model="tensorrt_llm",request_type="waiting",version="1"} 3
# TYPE nv_trt_llm_kv_cache_block_metrics gauge
nv_trt_llm_kv_cache_block_metrics{kv_cache_block_type="tokens_per",model="tensorrt_llm",version="1"} 64
nv_trt_llm_kv_cache_block_metrics{kv_cache_block_type="fraction",model="tensorrt_llm",version="1"} 0.25
""",
    "trtllm-serve": b"""\
# TYPE trtllm_kv_cache_utilization gauge
trtllm_kv_cache_utilization{engine_type="pytorch",model_name="m"} 0.25
trtllm_num_requests_waiting{engine_type="pytorch",model_name="m"} 3.0
trtllm_num_requests_running{engine_type="pytorch",model_name="m"} 5.0
""",
}


@pytest.mark.parametrize("server", PAGES)
def test_every_engine_is_recognised_by_its_page(server: str) -> None:
    reader = PageReader(engines_to_try(configured_engine("vllm"), {}))
    for _ in range(3):
        assert reader.read(PAGES[server]) == Load(3, 5, 0.25, NO_ADAPTERS)


@pytest.mark.parametrize("label", ["llm-d.ai/engine-type", "inference.networking.k8s.io/engine-type"])
def test_a_label_selects_the_engine(label: str) -> None:
    reader = PageReader(engines_to_try(configured_engine("vllm"), {label: "sglang"}))
    assert reader.read(PAGES["vllm"] + PAGES["sglang"].replace(b" 3.0", b" 7.0")).waiting == 7
    with pytest.raises(ScrapeError, match="sglang:num_queue_reqs"):
        PageReader(engines_to_try(configured_engine("vllm"), {label: "sglang"})).read(PAGES["vllm"])


def test_a_label_of_the_configured_engine_keeps_its_configured_names() -> None:
    engine = configured_engine("vllm", waiting="mine")
    reader = PageReader(engines_to_try(engine, {"llm-d.ai/engine-type": "vllm"}))
    assert reader.read(PAGES["vllm"] + b"mine 9\n").waiting == 9


def test_a_changed_engine_is_recognised() -> None:
    reader = PageReader(engines_to_try(configured_engine("vllm"), {}))
    reader.read(PAGES["vllm"])
    assert reader.read(PAGES["sglang"].replace(b" 3.0", b" 7.0")).waiting == 7


@pytest.mark.parametrize("flag", ["vllm:gpu_cache_usage_perc", "vllm:kv_cache_usage_perc", None])
@pytest.mark.parametrize("server", ["vllm", "vllm before 0.10"])
def test_both_names_of_the_cache_usage_find_either_metric(flag: str | None, server: str) -> None:
    assert PageReader([configured_engine("vllm", kv_usage=flag)]).read(PAGES[server]).kv_usage == 0.25


def test_a_configured_metric_name_replaces_the_presets() -> None:
    reader = PageReader([configured_engine("vllm", waiting="queue{pool=a}", running="", kv_usage="cache")])
    page = b'queue{pool="b"} 1\nqueue{pool="a"} 2\nvllm:num_requests_running 7\nvllm:kv_cache_usage_perc 0.5\n'
    assert reader.read(page) == Load(2, 0, 0, NO_ADAPTERS)
    assert [str(value.gauge) for value in reader.values if value.missing] == ["cache"]


def test_the_error_about_an_unknown_engine_lists_the_known_ones() -> None:
    with pytest.raises(ConfigError, match=r"'llama'.*vllm, sglang"):
        configured_engine("llama")


def test_a_value_that_the_page_lacks_keeps_its_last_number() -> None:
    reader = PageReader([configured_engine("vllm", waiting="w", running="r", kv_usage="k")])
    reader.read(b"w 1\nr 2\nk 0.5\n")
    assert reader.read(b"w 3\nr 4\n") == Load(3, 4, 0.5, NO_ADAPTERS)


@pytest.mark.parametrize("text", ["NaN", "-1", "+Inf", "1e300", "many"])
def test_an_implausible_number_is_ignored(text: str) -> None:
    reader = PageReader([configured_engine("vllm", waiting="w", running="r", kv_usage="k")])
    reader.read(b"w 1\nr 2\nk 0.5\n")
    assert reader.read(f"w {text}\nr 4\nk {text}\n".encode()) == Load(1, 4, 0.5, NO_ADAPTERS)
    assert [value.purpose for value in reader.values if value.rejected] == ["waiting", "kv_usage"]
    with pytest.raises(ScrapeError, match="no plausible value of any of w, r, k"):
        reader.read(f"w {text}\nr {text}\nk {text}\n".encode())


def test_the_error_about_a_json_page_names_the_path_of_the_right_page() -> None:
    with pytest.raises(ScrapeError, match="/prometheus/metrics"):
        PageReader(engines_to_try(configured_engine("trtllm-serve"), {})).read(b'[{"iter": 1}]')


def test_adapters_are_read_from_the_page_and_forgotten_without_their_series() -> None:
    lora = b'vllm:lora_requests_info{max_lora="2",running_lora_adapters="a",waiting_lora_adapters="b"} 1.7e9\n'
    reader = PageReader([configured_engine("vllm")])
    assert reader.read(PAGES["vllm"]).adapters == NO_ADAPTERS
    # The reader looks for the series only on some pages.
    seen = [reader.read(PAGES["vllm"] + lora).adapters for _ in range(30)]
    assert seen[-1] == Adapters(frozenset({"a"}), frozenset({"b"}), 2)
    assert reader.read(PAGES["vllm"]).adapters == NO_ADAPTERS
