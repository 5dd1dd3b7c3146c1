"""Plugin types that are accepted for compatibility, since the picker does their work anyway.

Parameters that ask for more than the picker does are refused.
"""

from typing import Any, ClassVar

from epp.scheduling.plugin import Marker, plugin


@plugin("token-producer")
class TokenProducer(Marker, frozen=True):
    """Accepted for compatibility: prompt tokens are estimated from usage, or counted by the flag --tokenizer."""

    estimate: dict[str, Any] | None = None
    model_name: str = ""
    vllm: dict[str, Any] | None = None
    uds_tokenizer_config: dict[str, Any] | None = None

    unsupported: ClassVar[dict[str, str]] = {
        "vllm": "prompts aren't sent to a render endpoint; set the flag --tokenizer instead",
        "udsTokenizerConfig": "prompts aren't sent to a tokenizer service; set the flag --tokenizer instead",
    }

    def __post_init__(self) -> None:
        if self.estimate:
            raise ValueError("estimate: images and videos aren't counted, so there is nothing to set; use {}")


@plugin("metrics-data-source")
class MetricsDataSource(Marker, frozen=True):
    """Accepted for compatibility: flags set how endpoints are scraped; a parameter that differs is refused."""

    scheme: str = "http"
    path: str = "/metrics"
    port: int | None = None
    insecure_skip_verify: bool = True
    ca_cert_path: str = ""
    client_cert_path: str = ""
    client_key_path: str = ""
    interval: str = ""

    unsupported: ClassVar[dict[str, str]] = {
        "scheme": "set the flag --model-server-metrics-scheme instead, and leave this out",
        "path": "set the flag --model-server-metrics-path instead, and leave this out",
        "port": "set the flag --model-server-metrics-port instead, and leave this out",
        "insecureSkipVerify": "set the flag --model-server-metrics-https-insecure-skip-verify instead",
        "interval": "set the flag --refresh-metrics-interval instead, and leave this out",
        "caCertPath": "set the flag --model-server-metrics-ca-file instead, and leave this out",
        "clientCertPath": "scraping uses no client certificate",
        "clientKeyPath": "scraping uses no client certificate",
    }


@plugin("core-metrics-extractor")
class CoreMetricsExtractor(Marker, frozen=True):
    """Accepted for compatibility: flags name the metrics to read, or `--model-server-type` does."""

    default_engine: str = "vllm"
    engine_label_key: str = ""
    engine_configs: tuple[Any, ...] = ()

    unsupported: ClassVar[dict[str, str]] = {
        "defaultEngine": "set the flag --model-server-type instead, and leave this out",
        "engineLabelKey": "set the flag --model-server-type instead, and leave this out",
        "engineConfigs": "name the metrics by flags such as --total-queued-requests-metric instead",
    }


@plugin("openai-parser")
class OpenAiParser(Marker, frozen=True):
    """Accepted for compatibility: request bodies at the paths of the OpenAI API are always read."""


@plugin("passthrough-parser")
class PassthroughParser(Marker, frozen=True):
    """Accepted for compatibility: bodies at other paths always pass through unread, routed by load alone."""
