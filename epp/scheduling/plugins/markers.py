"""Types that configurations name for what the picker does anyway; parameters that ask for more are refused."""

from typing import Any, ClassVar

from epp.scheduling.plugin import Marker, plugin


@plugin("token-producer")
class TokenProducer(Marker, frozen=True):
    """Prompt tokens are estimated, which responses' usage corrects, or counted by the tokenizer that a flag names."""

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
            raise ValueError("estimate: images and videos aren't counted, so there is nothing to set; give {}")


@plugin("metrics-data-source")
class MetricsDataSource(Marker, frozen=True):
    """Endpoints are scraped as the flags say; parameters that say otherwise are refused, and name the flag."""

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
        "caCertPath": "scraping doesn't verify by a given authority",
        "clientCertPath": "scraping has no client certificates",
        "clientKeyPath": "scraping has no client certificates",
    }


@plugin("core-metrics-extractor")
class CoreMetricsExtractor(Marker, frozen=True):
    """The metrics are read that the flags name, or that are those of `--model-server-type`."""

    default_engine: str = "vllm"
    engine_label_key: str = ""
    engine_configs: tuple[Any, ...] = ()

    unsupported: ClassVar[dict[str, str]] = {
        "defaultEngine": "set the flag --model-server-type instead, and leave this out",
        "engineLabelKey": "set the flag --model-server-type instead, and leave this out",
        "engineConfigs": "name the metrics by the flags --total-queued-requests-metric and its like instead",
    }


@plugin("openai-parser")
class OpenAiParser(Marker, frozen=True):
    """Bodies at the OpenAI API's paths are read."""


@plugin("passthrough-parser")
class PassthroughParser(Marker, frozen=True):
    """Bodies at other paths pass through unread, and are routed by load alone."""
