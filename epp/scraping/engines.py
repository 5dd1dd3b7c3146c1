"""The names of the model servers' load metrics, and how to find out which server an endpoint runs.

Names and units are those of the model server protocol of the Gateway API's inference extension. All of these servers
report KV cache usage as a fraction of 1, under any name.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace

from epp.exceptions import ConfigError
from epp.scraping.metrics_page import Gauge, Gauges

# A pod says by one of these labels what it runs.
ENGINE_LABELS = ("llm-d.ai/engine-type", "inference.networking.k8s.io/engine-type")


@dataclass(frozen=True, slots=True)
class CacheMetrics:
    """A model server's metrics of its prefix cache. Sizes are labels of `info`, or values of two series.

    Hits are a rate of 1, or counts of prompt tokens.
    """

    info: Gauges = ()
    block_tokens: Gauges = ()
    blocks: Gauges = ()
    hit_rate: Gauges = ()
    hits: Gauges = ()
    queries: Gauges = ()


@dataclass(frozen=True, slots=True)
class EngineMetrics:
    """A model server's metric names. If several names are given for one thing, the first on the page counts."""

    name: str
    waiting: Gauges
    running: Gauges
    kv_usage: Gauges
    lora: Gauges
    cache: CacheMetrics = CacheMetrics()


def _engine(
    name: str,
    waiting: str,
    running: str,
    kv_usage: Sequence[str],
    cache: CacheMetrics,
    lora: Sequence[str] = (),
) -> EngineMetrics:
    return EngineMetrics(name, _gauges([waiting]), _gauges([running]), _gauges(kv_usage), _gauges(lora), cache)


def _gauges(names: Sequence[str]) -> Gauges:
    return tuple(gauge for gauge in map(Gauge.parse, names) if gauge)


ENGINES: Mapping[str, EngineMetrics] = {
    engine.name: engine
    for engine in (
        _engine(
            "vllm",
            "vllm:num_requests_waiting",
            "vllm:num_requests_running",
            # Renamed in vLLM 0.10; the old name was dropped some releases later.
            ["vllm:kv_cache_usage_perc", "vllm:gpu_cache_usage_perc"],
            CacheMetrics(
                info=_gauges(["vllm:cache_config_info"]),
                hits=_gauges(["vllm:prefix_cache_hits_total"]),
                queries=_gauges(["vllm:prefix_cache_queries_total"]),
            ),
            ["vllm:lora_requests_info"],
        ),
        _engine(
            "sglang",
            "sglang:num_queue_reqs",
            "sglang:num_running_reqs",
            ["sglang:token_usage"],
            CacheMetrics(info=_gauges(["sglang:cache_config_info"]), hit_rate=_gauges(["sglang:cache_hit_rate"])),
        ),
        _engine(
            "triton-tensorrt-llm",
            "nv_trt_llm_request_metrics{request_type=waiting}",
            "nv_trt_llm_request_metrics{request_type=scheduled}",
            ["nv_trt_llm_kv_cache_block_metrics{kv_cache_block_type=fraction}"],
            CacheMetrics(
                block_tokens=_gauges(["nv_trt_llm_kv_cache_block_metrics{kv_cache_block_type=tokens_per}"]),
                blocks=_gauges(["nv_trt_llm_kv_cache_block_metrics{kv_cache_block_type=max}"]),
            ),
        ),
        # Serves this page at /prometheus/metrics; its /metrics is JSON.
        _engine(
            "trtllm-serve",
            "trtllm_num_requests_waiting",
            "trtllm_num_requests_running",
            ["trtllm_kv_cache_utilization"],
            CacheMetrics(
                block_tokens=_gauges(["trtllm_kv_cache_tokens_per_block"]),
                blocks=_gauges(["trtllm_kv_cache_max_blocks"]),
            ),
        ),
    )
}


def configured_engine(
    server_type: str,
    *,
    waiting: str | None = None,
    running: str | None = None,
    kv_usage: str | None = None,
    lora: str | None = None,
    cache_info: str | None = None,
) -> EngineMetrics:
    """Return the model server of endpoints without an engine label: a preset, with some names replaced.

    None keeps the preset's name; an empty text switches the metric off. Raise ConfigError for an unknown type or a bad
    name.
    """
    preset = ENGINES.get(server_type)
    if preset is None:
        raise ConfigError(f"model server type {server_type!r}: expected one of {', '.join(ENGINES)}")
    return EngineMetrics(
        server_type,
        _override_gauges(waiting, preset.waiting),
        _override_gauges(running, preset.running),
        _override_gauges(kv_usage, preset.kv_usage),
        _override_gauges(lora, preset.lora),
        replace(preset.cache, info=_override_gauges(cache_info, preset.cache.info)),
    )


def _override_gauges(text: str | None, preset: Gauges) -> Gauges:
    """Return the given name, followed by the preset's other names for the same thing if it is one of them."""
    if text is None:
        return preset
    gauge = Gauge.parse(text)
    if gauge is None:
        return ()
    return (gauge, *(other for other in preset if other != gauge)) if gauge in preset else (gauge,)


def labelled_engine(labels: Mapping[str, str]) -> str:
    """Return the model server that an endpoint's labels name; empty if they name none."""
    return next((labels[label] for label in ENGINE_LABELS if labels.get(label)), "")


def engines_to_try(default: EngineMetrics, labels: Mapping[str, str]) -> tuple[EngineMetrics, ...]:
    """Return the model servers to try: the labelled one, or else the default one first and then all others."""
    named = labelled_engine(labels)
    if named == default.name:
        return (default,)
    if named in ENGINES:
        return (ENGINES[named],)
    return (default, *(engine for name, engine in ENGINES.items() if name != default.name))
