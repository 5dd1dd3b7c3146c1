"""A calibrated engine compared with published end-to-end measurements of servers.

Each of the same number of clients sends one request at a time.
"""

import csv
from collections.abc import Hashable, Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from statistics import mean

import click

from simulator.engine import Engine
from simulator.hardware import Hardware
from simulator.sequence import Sequence

_REQUESTS_PER_CLIENT = 4


@dataclass(frozen=True, slots=True)
class Served:
    """A server's latencies under a number of clients. All prompts have the same length, and so have all answers."""

    clients: int
    prompt_tokens: int
    output_tokens: int
    ttft_ms: float
    tpot_ms: float


def read_served(packages: Path, system: str, model: str, gpus: int) -> list[Served]:
    """Read the package's end-to-end measurements of vLLM in bf16."""
    file = packages / "aiconfigurator_core" / "systems" / "silicon_sample.csv"
    try:
        with file.open(newline="") as lines:
            return served_cases(csv.DictReader(lines), system, model, gpus)
    except OSError as error:
        raise click.ClickException(f"can't read {file}: {error.strerror}") from error


def served_cases(rows: Iterable[Mapping[str, str]], system: str, model: str, gpus: int) -> list[Served]:
    own = {"system": system, "model_path": model, "tp_size": str(gpus), "backend": "vllm", "mode": "agg"}
    return [
        Served(
            int(row["batch_size"]),
            int(row["isl"]),
            int(row["osl"]),
            float(row["silicon_ttft_ms"]),
            float(row["silicon_tpot_ms"]),
        )
        for row in rows
        if not row["precision"] and all(row[key] == value for key, value in own.items())
    ]


def imitate(hardware: Hardware, case: Served) -> Served:
    """Run the same clients against a simulated engine. All begin at once. Return their mean latencies in ms."""
    engine, now_ms, sent = Engine(hardware), 0.0, 0
    started: dict[Hashable, float] = {}
    first: dict[Hashable, float] = {}
    ttfts: list[float] = []
    tpots: list[float] = []
    ended = case.clients
    while True:
        for _ in range(min(ended, case.clients * _REQUESTS_PER_CLIENT - sent)):
            engine.submit(Sequence(str(sent), (), case.prompt_tokens, case.output_tokens))
            started[str(sent)] = now_ms
            sent += 1
        step = engine.step()
        if step is None:
            return Served(case.clients, case.prompt_tokens, case.output_tokens, mean(ttfts), mean(tpots))
        now_ms += step.duration_ms
        for name in step.produced:
            first.setdefault(name, now_ms)
        for name in step.finished:
            ttfts.append(first[name] - started[name])
            tpots.append((now_ms - first[name]) / max(1, case.output_tokens - 1))
        ended = len(step.finished)
