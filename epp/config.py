"""The picker's configuration, read once at the start. Flags override the environment, which overrides defaults."""

from dataclasses import dataclass
from typing import Literal


@dataclass(frozen=True, kw_only=True)
class Config:
    """The values of the flags, under their names. epp/options.py describes each flag. Durations are in seconds."""

    host: str
    grpc_port: int
    grpc_health_port: int
    metrics_port: int
    grpc_front: Literal["http2", "grpcio"]
    workers: int
    pool_name: str
    pool_namespace: str
    pool_group: str
    endpoint_selector: str
    endpoint_target_ports: str
    endpoints: str
    endpoints_file: str
    kubeconfig: str
    ha_enable_leader_election: bool
    secure_serving: bool
    cert_path: str
    tls_min_version: str
    tls_cipher_suites: str
    client_ca_file: str
    health_checking: bool
    grpc_max_recv_msg_size: int
    max_inspected_body: int
    max_buffered_bytes: int
    max_connections: int
    metrics_endpoint_auth: bool
    metrics_cert_dir: str
    metrics_client_ca_file: str
    model_server_type: str
    total_queued_requests_metric: str | None
    total_running_requests_metric: str | None
    kv_cache_usage_percentage_metric: str | None
    lora_info_metric: str | None
    cache_info_metric: str | None
    refresh_metrics_interval: tuple[float, float]
    idle_metrics_interval: float
    metrics_staleness_threshold: float
    model_server_metrics_port: int
    model_server_metrics_path: str
    model_server_metrics_scheme: str
    model_server_metrics_https_insecure_skip_verify: bool
    model_server_metrics_ca_file: str
    model_server_metrics_token_file: str
    config_file: str
    config_text: str
    default_objectives_file: str
    shadow: bool
    outcome_journal: str
    disable_endpoint_subset_filter: bool
    emit_endpoint_scores: bool
    enable_latency_predictor: bool
    latency_client: Literal["remote", "embedded"]
    prediction_server_url: str
    prediction_timeout: float
    model_store: str
    verify_key_file: str
    model_sync_interval_sec: float
    training_server_url: str
    latency_ca_file: str
    latency_token_file: str
    latency_max_sample_size: int
    latency_flush_interval_sec: float
    latency_http_timeout_sec: float
    observed_responses_per_second: float
    observed_tokens_per_second: float
    tokenizer: str
    predictions_in_headers: bool
    predictions_in_usage: bool
    try_timeout_factor: float
    degrade_after: float
    live_page: bool
    live_page_token_file: str
    live_comparison_file: str
    debug_access: Literal["all", "local"]
    debug_decisions: int
    enable_pprof: bool
    tracing: bool
    shutdown_delay: float
    drain_timeout: float

    @property
    def prediction_urls(self) -> tuple[str, ...]:
        return tuple(url.strip() for url in self.prediction_server_url.split(",") if url.strip())

    @property
    def uses_kubernetes(self) -> bool:
        return not (self.endpoints or self.endpoints_file)
