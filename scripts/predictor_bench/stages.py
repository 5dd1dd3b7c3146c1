"""Where the time of a predictor's requests goes, as it counts it itself."""

from scripts.trainer_bench.serving import ask

# What the predictor calls its stages. It counts parsing and filling the tensor as one.
_NAMES = {"parse_and_tensor": "compute_input", "run": "compute_infer", "serialise": "compute_output"}


def stages(url: str) -> dict[str, int]:
    """Nanoseconds that the requests so far have spent in each stage, over all models."""
    models = ask(f"{url}/v2/models/stats")[1]["model_stats"]
    return {stage: sum(model["inference_stats"][name]["ns"] for model in models) for stage, name in _NAMES.items()}
