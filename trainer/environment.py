"""Environment variables that other training servers read and that have no effect here, each with the reason."""

from collections.abc import Mapping

_PATH = "models are published in the store that MODEL_STORE names"
_ENSEMBLE = "one model per target covers queued and unqueued requests, with the queue as a feature"
_FEATURE = "the feature is always present, and models handle missing values"
UNUSED: Mapping[str, str] = {
    **dict.fromkeys(
        (
            "LATENCY_TTFT_MODEL_PATH",
            "LATENCY_TPOT_MODEL_PATH",
            "LATENCY_TTFT_SCALER_PATH",
            "LATENCY_TPOT_SCALER_PATH",
            "LATENCY_TTFT_GATED_MODEL_PATH",
            "LATENCY_TPOT_GATED_MODEL_PATH",
        ),
        _PATH,
    ),
    **dict.fromkeys(("LATENCY_ENSEMBLE_MODE", "LATENCY_MIN_SAMPLES_FOR_ENSEMBLE_SPLIT"), _ENSEMBLE),
    **dict.fromkeys(("LATENCY_ENABLE_TOKEN_IN_FLIGHT_FEATURES", "LATENCY_ENABLE_ENCODER_FEATURES"), _FEATURE),
    "LATENCY_TPOT_ZERO_TOKEN_COUNT": "num_tokens_generated is used as it is sent",
}
