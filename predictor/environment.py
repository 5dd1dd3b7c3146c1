"""Environment variables that other prediction servers read and that have no effect here, each with the reason."""

from collections.abc import Mapping

_PATH = "models come from the store that MODEL_STORE names, and are kept in memory"
_MANIFEST = "each model's manifest tells it"
UNUSED: Mapping[str, str] = {
    **dict.fromkeys(
        (f"LOCAL_{target}_{kind}_PATH" for target in ("TTFT", "TPOT") for kind in ("MODEL", "SCALER", "GATED_MODEL")),
        _PATH,
    ),
    **dict.fromkeys(("LATENCY_QUANTILE_ALPHA", "LATENCY_OBJECTIVE_TYPE"), _MANIFEST),
    **dict.fromkeys(
        ("LATENCY_ENSEMBLE_MODE", "LATENCY_ENABLE_TOKEN_IN_FLIGHT_FEATURES", "LATENCY_ENABLE_ENCODER_FEATURES"),
        "models take every feature, and handle missing values",
    ),
    **dict.fromkeys(("HTTP_TIMEOUT", "DOWNLOAD_RETRIES"), "nothing is downloaded from the training server"),
    "UVICORN_WORKERS": "its name here is PREDICT_WORKERS, and its default is 1",
}
