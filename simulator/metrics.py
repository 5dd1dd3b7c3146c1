"""The metrics page, with vLLM's names and labels."""

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram, generate_latest

from simulator.engine import Engine, Sequence

_TTFT_BUCKETS_S = (0.001, 0.005, 0.01, 0.02, 0.04, 0.06, 0.08, 0.1, 0.25, 0.5, 0.75, 1, 2.5, 5, 7.5, 10, 20, 40, 80)
_TPOT_BUCKETS_S = (0.01, 0.025, 0.05, 0.075, 0.1, 0.15, 0.2, 0.3, 0.4, 0.5, 0.75, 1, 2.5)
_LABELS = ("engine", "model_name")


class Metrics:
    """What a router scrapes, and what an operator of vLLM would look for."""

    def __init__(self, engine: Engine, model: str) -> None:
        self.registry = CollectorRegistry()
        self._labels = {"engine": "0", "model_name": model}
        hardware = engine.hardware
        self._gauge("vllm:num_requests_running", "Requests in the running batch").set_function(lambda: engine.running)
        self._gauge("vllm:num_requests_waiting", "Requests waiting").set_function(lambda: engine.waiting)
        for name in ("vllm:kv_cache_usage_perc", "vllm:gpu_cache_usage_perc"):
            self._gauge(name, "KV cache usage, 1 is full").set_function(lambda: engine.kv_usage)
        lora = Gauge(
            "vllm:lora_requests_info",
            "Running LoRA requests",
            ("max_lora", "running_lora_adapters", "waiting_lora_adapters"),
            registry=self.registry,
        )
        lora.labels("0", "", "").set_to_current_time()
        cache = Gauge(
            "vllm:cache_config_info",
            "The KV cache's configuration",
            ("block_size", "num_gpu_blocks", "enable_prefix_caching", "engine"),
            registry=self.registry,
        )
        cache.labels(str(hardware.block_tokens), str(hardware.num_blocks), "True", "0").set(1)
        self._prompt_tokens = self._counter("vllm:prompt_tokens", "Prefill tokens processed")
        self._generation_tokens = self._counter("vllm:generation_tokens", "Tokens generated")
        self._success = self._counter("vllm:request_success", "Requests finished")
        self._ttft_s = self._histogram("vllm:time_to_first_token_seconds", "Time to first token", _TTFT_BUCKETS_S)
        self._tpot_s = self._histogram("vllm:time_per_output_token_seconds", "Time per token", _TPOT_BUCKETS_S)
        self._gauge("vllm:prefix_cache_queries", "Prompt tokens looked up").set_function(
            lambda: engine.prompt_tokens_queried
        )
        self._gauge("vllm:prefix_cache_hits", "Prompt tokens found cached").set_function(
            lambda: engine.prompt_tokens_cached
        )
        self._gauge("vllm:num_preemptions", "Preemptions").set_function(lambda: engine.preemptions)

    def page(self) -> bytes:
        return generate_latest(self.registry)

    def generated(self, tokens: int) -> None:
        self._generation_tokens.inc(tokens)

    def first_token(self, ttft_s: float) -> None:
        self._ttft_s.observe(ttft_s)

    def finished(self, sequence: Sequence, decode_s: float) -> None:
        self._success.inc()
        self._prompt_tokens.inc(sequence.prompt_tokens)
        if sequence.output_tokens > 1:
            self._tpot_s.observe(decode_s / (sequence.output_tokens - 1))

    def _gauge(self, name: str, description: str) -> Gauge:
        return Gauge(name, description, _LABELS, registry=self.registry).labels(**self._labels)

    def _counter(self, name: str, description: str) -> Counter:
        return Counter(name, description, _LABELS, registry=self.registry).labels(**self._labels)

    def _histogram(self, name: str, description: str, buckets: tuple[float, ...]) -> Histogram:
        return Histogram(name, description, _LABELS, buckets=buckets, registry=self.registry).labels(**self._labels)
