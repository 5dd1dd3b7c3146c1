"""A benchmark's figures: a table on the terminal, and a JSON document to compare over time."""

import json
import os
import platform
from collections.abc import Iterable, Mapping, Sequence
from importlib.metadata import version
from pathlib import Path
from typing import Any, TypeVar

from rich.console import Console
from rich.progress import track

_CPU_NAMES = ("model name", "Model")
T = TypeVar("T")


def steps(values: Sequence[T], name: str) -> Iterable[T]:
    """Yield the values and show the progress on stderr, because stdout is for the report."""
    return track(values, name, console=Console(stderr=True))


def report(figures: Mapping[str, float]) -> None:
    console = Console()
    for name, value in figures.items():
        console.print(f"{name:40} {value:>12.4g}", highlight=False)


def rounded(figures: Mapping[str, float]) -> dict[str, float]:
    """Round figures as the documents hold them, so that a table made beside a document shows the same numbers."""
    return {name: round(float(value), 5) for name, value in figures.items()}


def write(file: Path, figures: Mapping[str, float], packages: Iterable[str], settings: Mapping[str, Any]) -> None:
    document = {
        "figures": rounded(figures),
        "machine": {"cores": os.cpu_count(), "cpu": cpu(), "python": platform.python_version()},
        "versions": {name: version(name) for name in packages},
        "settings": dict(settings),
    }
    file.write_text(json.dumps(document, indent=2) + "\n")


def cpu() -> str:
    try:
        lines = Path("/proc/cpuinfo").read_text().splitlines()
    except OSError:
        return platform.processor()
    return next((line.partition(":")[2].strip() for line in lines if line.startswith(_CPU_NAMES)), "")
