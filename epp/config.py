"""The picker's configuration: read once at the start, from flags, then the environment, then defaults."""

from dataclasses import dataclass


@dataclass(frozen=True, kw_only=True)
class Config:
    """Names are those of the flags; durations in seconds."""

    host: str
    grpc_port: int
    grpc_health_port: int
    metrics_port: int
    pool_name: str
    pool_namespace: str
    pool_group: str
    endpoints: str
    endpoints_file: str
    secure_serving: bool
    cert_path: str
    health_checking: bool
    total_queued_requests_metric: str
    total_running_requests_metric: str
    kv_cache_usage_percentage_metric: str
    refresh_metrics_interval: float
    metrics_staleness_threshold: float
    model_server_metrics_port: int
    model_server_metrics_path: str
    model_server_metrics_scheme: str
    model_server_metrics_https_insecure_skip_verify: bool
    config_file: str
    config_text: str
    enable_latency_predictor: bool
    prediction_server_url: str
    training_server_url: str
    prediction_timeout: float
    latency_client: str
    model_store: str
    model_sync_interval_sec: float
    tokenizer: str
    predictions_in_headers: bool
    predictions_in_usage: bool
    latency_max_sample_size: int
    latency_flush_interval_sec: float
    latency_http_timeout_sec: float
    observed_responses_per_second: float
    debug_decisions: int
    drain_timeout: float
    v: int

    @property
    def prediction_urls(self) -> tuple[str, ...]:
        return tuple(url.strip() for url in self.prediction_server_url.split(",") if url.strip())
