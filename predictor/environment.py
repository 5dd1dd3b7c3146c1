"""Environment variables that other prediction servers read and that have no effect here, each with the reason."""

from collections.abc import Mapping

_PATH = "models come from the store that MODEL_STORE names, and are kept in memory"
_SAID = "each model's manifest says it"
UNUSED: Mapping[str, str] = {
    **dict.fromkeys(
        (f"LOCAL_{target}_{kind}_PATH" for target in ("TTFT", "TPOT") for kind in ("MODEL", "SCALER", "GATED_MODEL")),
        _PATH,
    ),
    **dict.fromkeys(("LATENCY_QUANTILE_ALPHA", "LATENCY_OBJECTIVE_TYPE"), _SAID),
    **dict.fromkeys(
        ("LATENCY_ENSEMBLE_MODE", "LATENCY_ENABLE_TOKEN_IN_FLIGHT_FEATURES", "LATENCY_ENABLE_ENCODER_FEATURES"),
        "the graph takes every feature, and learns what is missing",
    ),
    **dict.fromkeys(("HTTP_TIMEOUT", "DOWNLOAD_RETRIES"), "nothing is downloaded from the training server"),
    "UVICORN_WORKERS": "its name here is PREDICT_WORKERS, by default one",
}
