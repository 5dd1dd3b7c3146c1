"""Measured times of kernels, from the tables in the PyPI package aiconfigurator-core."""

import sys
from bisect import bisect_right
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from importlib import import_module
from pathlib import Path
from typing import Any

import click

from lab.calibration.pairs import Pair

PACKAGE = "aiconfigurator-core==0.12.0"
Rows = Iterable[Mapping[str, Any]]


@dataclass(frozen=True, slots=True)
class Kernels:
    """Times in ms on one accelerator, in bf16.

    - `gemm`: by (m, n, k), for an m x k matrix times a k x n matrix.
    - `prompt`: by the length of one whole prompt.
    - `decode`: by (sequences, tokens of each in the cache).
    - `all_reduce`: by mode ("vllm_graph" or "vllm_eager"), then by the number of values.
    """

    gemm: dict[tuple[int, int, int], float]
    prompt: dict[int, float]
    decode: dict[tuple[int, int], float]
    all_reduce: dict[str, dict[int, float]]


def read_kernels(packages: Path, pair: Pair) -> Kernels:
    """Read the kernel times from the folder `packages`. If they aren't there, a ClickException says how to install."""
    data = packages / "aiconfigurator_core" / "systems" / "data" / pair.accelerator.system
    folders = {kind: data / kind / "vllm" / pair.accelerator.version for kind in ("gemm", "attention", "comm")}
    return Kernels(
        gemm=gemm_times(_read(packages, folders["gemm"] / "gemm_perf.parquet")),
        prompt=prompt_times(_read(packages, folders["attention"] / "context_attention_perf.parquet"), pair),
        decode=decode_times(_read(packages, folders["attention"] / "generation_attention_perf.parquet"), pair),
        all_reduce=all_reduce_times(_read(packages, folders["comm"] / "custom_allreduce_perf.parquet"), pair)
        if pair.gpus > 1
        else {},
    )


def gemm_times(rows: Rows) -> dict[tuple[int, int, int], float]:
    return {(row["m"], row["n"], row["k"]): row["latency"] for row in rows if row["gemm_dtype"] == "bfloat16"}


def prompt_times(rows: Rows, pair: Pair) -> dict[int, float]:
    return {row["isl"]: row["latency"] for row in rows if _is_of(row, pair) and row["batch_size"] == 1}


def decode_times(rows: Rows, pair: Pair) -> dict[tuple[int, int], float]:
    return {(row["batch_size"], row["step"]): row["latency"] for row in rows if _is_of(row, pair)}


def all_reduce_times(rows: Rows, pair: Pair) -> dict[str, dict[int, float]]:
    found: dict[str, dict[int, float]] = {"vllm_graph": {}, "vllm_eager": {}}
    for row in rows:
        if row["num_gpus"] == pair.gpus and row["allreduce_dtype"] == "bfloat16":
            found[row["backend"]][row["message_size"]] = row["latency"]
    return found


def gemm_ms(gemm: Mapping[tuple[int, int, int], float], m: int, n: int, k: int) -> float:
    """Return the time of a product whose `m` is in the table.

    The time is linear between measured `n` and `k`, and grows in proportion beyond the largest.
    """
    columns, depths = sorted({n for _, n, _ in gemm}), sorted({k for _, _, k in gemm})
    return sum(gemm[m, a, b] * share * part for a, share in _mix(columns, n) for b, part in _mix(depths, k))


def _mix(known: list[int], wanted: int) -> list[tuple[int, float]]:
    """Return the known sizes to interpolate from, each with its weight."""
    at = bisect_right(known, wanted)
    if at == len(known):
        return [(known[-1], wanted / known[-1])]
    low, high = known[at - 1], known[at]
    share = (wanted - low) / (high - low)
    return [(low, 1 - share), (high, share)] if share else [(low, 1.0)]


def _is_of(row: Mapping[str, Any], pair: Pair) -> bool:
    model = pair.model
    # Older tables have no column for the sliding window.
    return bool(
        row["num_heads"] == model.heads // pair.gpus
        and row["num_key_value_heads"] == model.kv_heads // pair.gpus
        and row["head_dim"] == model.head_dim
        and row["attn_dtype"] == row["kv_cache_dtype"] == "bfloat16"
        and not row.get("window_size")
    )


def _read(packages: Path, file: Path) -> Rows:
    # Package and pyarrow are large, and only this script needs them. So they aren't in the project's environment.
    sys.path.insert(0, str(packages))
    try:
        parquet = import_module("pyarrow.parquet")
        rows: list[dict[str, Any]] = parquet.read_table(file).to_pylist()
    except (ImportError, OSError) as error:
        install = f"pip install --no-deps --target {packages} {PACKAGE} pyarrow"
        raise click.ClickException(f"{error}. Install the packages by: {install}") from error
    finally:
        sys.path.remove(str(packages))
    return rows
