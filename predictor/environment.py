"""Variables that other prediction servers read and this one has no use for: each is told, none is fatal."""

from collections.abc import Iterator, Mapping

_PATH = "models come from the store that MODEL_STORE names, and are kept in memory"
_SAID = "each model's manifest says it"
_UNUSED = {
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


def unused(environment: Mapping[str, str]) -> Iterator[str]:
    """A line for each variable that is set and means nothing here."""
    for name, reason in _UNUSED.items():
        if name in environment:
            yield f"{name} is set and not used: {reason}"
