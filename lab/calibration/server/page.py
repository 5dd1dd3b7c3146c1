"""The values that a measurement reads from a server's metrics page, by vLLM's names."""

import re
from dataclasses import dataclass

from lab.calibration.exceptions import MeasureError

_SAMPLE = re.compile(r"^(vllm:\w+)(?:\{(.*)\})? (\S+)$", re.MULTILINE)
_LABEL = re.compile(r'(\w+)="((?:[^"\\]|\\.)*)"')


@dataclass(frozen=True, slots=True)
class Page:
    """The requests on the server now, those ended so far, prefix hits in tokens, and the KV cache's configuration."""

    running: int
    waiting: int
    kv_usage: float
    ended: int
    hit_tokens: int
    num_blocks: int
    block_tokens: int
    has_prefix_cache: bool

    @property
    def present(self) -> int:
        return self.running + self.waiting


def parse_page(text: str) -> Page:
    """Parse a metrics page. MeasureError names what is missing."""
    sums: dict[str, float] = {}
    cache: dict[str, str] = {}
    for name, labels, value in _SAMPLE.findall(text):
        sums[name] = sums.get(name, 0.0) + float(value)
        if name == "vllm:cache_config_info":
            cache = dict(_LABEL.findall(labels))

    def count(name: str) -> int:
        if name not in sums:
            raise MeasureError(f"the metrics page has no {name}: only servers with vLLM's metrics can be measured")
        return round(sums[name])

    def size(label: str) -> int:
        value = cache.get(label, "")
        if not value.isdigit() or not int(value):
            raise MeasureError(f"vllm:cache_config_info has no {label}: the server has no paged KV cache to describe")
        return int(value)

    return Page(
        running=count("vllm:num_requests_running"),
        waiting=count("vllm:num_requests_waiting"),
        kv_usage=sums.get("vllm:kv_cache_usage_perc", 0.0),
        ended=count("vllm:request_success_total"),
        hit_tokens=round(sums.get("vllm:prefix_cache_hits_total", 0.0)),
        num_blocks=size("num_gpu_blocks"),
        block_tokens=size("block_size"),
        has_prefix_cache=cache.get("enable_prefix_caching") == "True",
    )
