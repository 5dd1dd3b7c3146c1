import math

import pytest

from epp.pool.prefix_index import UNKNOWN_CACHE, CacheSize
from epp.scraping.cache_reader import _PAGES_PER_READ, CacheReader
from epp.scraping.engines import ENGINES

# As vLLM 0.32.0 writes it for a CPU: labels that are no numbers, in the order of its configuration.
VLLM = (
    'vllm:cache_config_info{block_size="128",cache_dtype="auto",engine="0",gpu_memory_utilization="0.92",'
    'kv_cache_size_tokens="32768",num_cpu_blocks="None",num_gpu_blocks="256",sliding_window="None"} 1.0\n'
)
GPU = 'vllm:cache_config_info{block_size="16",engine="0",num_gpu_blocks="27918"} 1.0\n'
HITS = "vllm:prefix_cache_queries_total 400.0\nvllm:prefix_cache_hits_total 100.0\n"
SGLANG = 'sglang:cache_config_info{page_size="64",num_pages="1000"} 1.0\nsglang:cache_hit_rate 0.75\n'
TRITON = (
    'nv_trt_llm_kv_cache_block_metrics{kv_cache_block_type="fraction",model="m"} 0.5\n'
    'nv_trt_llm_kv_cache_block_metrics{kv_cache_block_type="max",model="m"} 500\n'
    'nv_trt_llm_kv_cache_block_metrics{kv_cache_block_type="tokens_per",model="m"} 32\n'
)
TRTLLM = "trtllm_kv_cache_max_blocks 500\ntrtllm_kv_cache_tokens_per_block 32\n"


def read(engine: str, *pages: str) -> CacheReader:
    reader = CacheReader(ENGINES[engine].cache)
    for page in pages:
        reader.read(page.encode())
    return reader


@pytest.mark.parametrize(
    ("engine", "page", "size", "hit_ratio"),
    [
        ("vllm", VLLM, CacheSize(32_768, 128), math.nan),
        ("vllm", GPU + HITS, CacheSize(27_918 * 16, 16), 0.25),
        ("sglang", SGLANG, CacheSize(64_000, 64), 0.75),
        ("triton-tensorrt-llm", TRITON, CacheSize(16_000, 32), math.nan),
        ("trtllm-serve", TRTLLM, CacheSize(16_000, 32), math.nan),
        ("vllm", "other 1\n", UNKNOWN_CACHE, math.nan),
    ],
    ids=["vllm-cpu", "vllm-gpu", "sglang", "triton", "trtllm-serve", "none"],
)
def test_sizes_and_hits_are_read_from_each_engine(engine: str, page: str, size: CacheSize, hit_ratio: float) -> None:
    reader = read(engine, page)
    assert reader.size == size
    assert reader.hit_ratio == pytest.approx(hit_ratio, nan_ok=True)


@pytest.mark.parametrize(
    "labels",
    [
        'block_size="None",num_gpu_blocks="10"',
        'block_size="16",num_gpu_blocks="0"',
        'block_size="16"',
        'block_size="-16",num_gpu_blocks="-10"',
        'block_size="99999999999",num_gpu_blocks="2"',
        'block_size="16",num_gpu_blocks="99999999999"',
        'block_size="16",num_gpu_blocks="1e3"',
    ],
)
def test_implausible_sizes_are_unknown(labels: str) -> None:
    assert read("vllm", f"vllm:cache_config_info{{{labels}}} 1\n").size == UNKNOWN_CACHE


def test_a_server_that_starts_anew_may_have_another_cache() -> None:
    before = [GPU] * _PAGES_PER_READ
    assert read("vllm", *before).size == CacheSize(27_918 * 16, 16)
    assert read("vllm", *before, VLLM).size == CacheSize(32_768, 128)


def test_labels_that_stay_are_not_parsed_anew(monkeypatch: pytest.MonkeyPatch) -> None:
    parsed: list[bytes] = []

    def parse(text: bytes) -> dict[bytes, bytes]:
        parsed.append(text)
        return {}

    monkeypatch.setattr("epp.scraping.cache_reader.parse_labels", parse)
    read("vllm", *[GPU] * (3 * _PAGES_PER_READ))
    assert len(parsed) == 1
