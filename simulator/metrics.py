"""The metrics page, with vLLM's names, labels and buckets.

A router reads the page twenty times a second. This module therefore writes the page by hand, which takes a small part
of the time that `prometheus_client` takes. Gauges show the engine at the moment of the scrape.
"""

import time
from bisect import bisect_left
from collections.abc import Callable, Mapping

from simulator.engine import Engine
from simulator.sequence import Sequence

CONTENT_TYPE = "text/plain; version=0.0.4; charset=utf-8"
_TTFT_BUCKETS_S = (0.001, 0.005, 0.01, 0.02, 0.04, 0.06, 0.08, 0.1, 0.25, 0.5, 0.75, 1, 2.5, 5, 7.5, 10, 20, 40, 80)
_TPOT_BUCKETS_S = (0.01, 0.025, 0.05, 0.075, 0.1, 0.15, 0.2, 0.3, 0.4, 0.5, 0.75, 1, 2.5, 5, 7.5, 10, 20, 40, 80)


class Metrics:
    """The metrics that a router scrapes, and those that an operator of vLLM looks for."""

    def __init__(self, engine: Engine, model: str) -> None:
        self._prompt_tokens = self._generation_tokens = 0
        self._success = {"length": 0, "abort": 0}
        labels = {"engine": "0", "model_name": model}
        self._ttft_s = _Histogram("vllm:time_to_first_token_seconds", "Time to first token", labels, _TTFT_BUCKETS_S)
        self._tpot_s = _Histogram("vllm:time_per_output_token_seconds", "Time per token", labels, _TPOT_BUCKETS_S)
        lora = {"max_lora": "0", "running_lora_adapters": "", "waiting_lora_adapters": ""}
        cache = {
            "block_size": str(engine.hardware.block_tokens),
            "enable_prefix_caching": "True",
            "engine": "0",
            "num_gpu_blocks": str(engine.hardware.num_blocks),
        }
        self._values = [
            _value("vllm:num_requests_running", "gauge", "Running requests", labels, lambda: engine.running),
            _value("vllm:num_requests_waiting", "gauge", "Waiting requests", labels, lambda: engine.waiting),
            _value("vllm:kv_cache_usage_perc", "gauge", "KV cache usage, 1 is full", labels, lambda: engine.kv_usage),
            _value("vllm:gpu_cache_usage_perc", "gauge", "KV cache usage, old name", labels, lambda: engine.kv_usage),
            _value("vllm:lora_requests_info", "gauge", "Time of the last look at LoRA requests", lora, time.time),
            _value("vllm:cache_config_info", "gauge", "The KV cache's configuration", cache, lambda: 1),
            _value("vllm:prompt_tokens", "counter", "Prompt tokens processed", labels, lambda: self._prompt_tokens),
            _value("vllm:generation_tokens", "counter", "Tokens generated", labels, lambda: self._generation_tokens),
            _value(
                "vllm:prefix_cache_queries",
                "counter",
                "Prompt tokens looked up",
                labels,
                lambda: engine.prompt_tokens_queried,
            ),
            _value(
                "vllm:prefix_cache_hits",
                "counter",
                "Prompt tokens found cached",
                labels,
                lambda: engine.prompt_tokens_cached,
            ),
            _value("vllm:num_preemptions", "counter", "Preemptions", labels, lambda: engine.preemptions),
        ]
        self._success_lines = {
            reason: f"vllm:request_success_total{_braces({**labels, 'finished_reason': reason})} "
            for reason in self._success
        }

    def page(self) -> bytes:
        lines = [f"{head}{value()}\n" for head, value in self._values]
        lines.append(_about("vllm:request_success_total", "counter", "Requests ended, by reason"))
        lines += [f"{self._success_lines[reason]}{count}\n" for reason, count in self._success.items()]
        return "".join(lines + self._ttft_s.lines() + self._tpot_s.lines()).encode()

    def generated(self, tokens: int) -> None:
        self._generation_tokens += tokens

    def first_token(self, sequence: Sequence, ttft_s: float) -> None:
        self._prompt_tokens += sequence.prompt_tokens
        self._ttft_s.observe(ttft_s)

    def later_token(self, gap_s: float) -> None:
        self._tpot_s.observe(gap_s)

    def ended(self, reason: str) -> None:
        """`reason` is "length" or "abort"."""
        self._success[reason] += 1


class _Histogram:
    def __init__(self, name: str, description: str, labels: Mapping[str, str], bounds: tuple[float, ...]) -> None:
        self._bounds = bounds
        self._counts = [0] * (len(bounds) + 1)
        self._sum = 0.0
        self._about = _about(name, "histogram", description)
        heads = [_braces({**labels, "le": bound}) for bound in (*(str(float(bound)) for bound in bounds), "+Inf")]
        self._buckets = [f"{name}_bucket{head} " for head in heads]
        self._rest = f"{name}_count{_braces(labels)} ", f"{name}_sum{_braces(labels)} "

    def observe(self, value: float) -> None:
        self._counts[bisect_left(self._bounds, value)] += 1
        self._sum += value

    def lines(self) -> list[str]:
        lines, count = [self._about], 0
        for head, more in zip(self._buckets, self._counts, strict=True):
            count += more
            lines.append(f"{head}{count}\n")
        return [*lines, f"{self._rest[0]}{count}\n", f"{self._rest[1]}{self._sum}\n"]


def _value(
    name: str, kind: str, description: str, labels: Mapping[str, str], value: Callable[[], float]
) -> tuple[str, Callable[[], float]]:
    """Return the text that comes before a value on the page, and the function that returns the value."""
    sample = f"{name}_total" if kind == "counter" else name
    return f"{_about(sample, kind, description)}{sample}{_braces(labels)} ", value


def _about(name: str, kind: str, description: str) -> str:
    return f"# HELP {name} {description}\n# TYPE {name} {kind}\n"


def _braces(labels: Mapping[str, str]) -> str:
    return "{" + ",".join(f'{name}="{_escaped(value)}"' for name, value in labels.items()) + "}"


def _escaped(value: str) -> str:
    return value.replace("\\", "\\\\").replace('"', '\\"').replace("\n", "\\n")
