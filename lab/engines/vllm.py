"""The commands that start real vLLM servers on processors."""

import os
import shutil
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

from headroom.processes.supervisor import Part
from lab.engines.environment import build

# All servers of a pool serve one base model, whatever weights they have.
MODEL = "tiny"
ADAPTERS = ("adapter-1", "adapter-2")
# A first start loads 1.5 GB of libraries; beside other work that takes minutes.
_READY_S = 600.0
_SETTINGS = {
    # Gigabytes.
    "VLLM_CPU_KVCACHE_SPACE": "1",
    "VLLM_CPU_OMP_THREADS_BIND": "nobind",
    "OMP_NUM_THREADS": "1",
    # Fetch and report nothing.
    "HF_HUB_OFFLINE": "1",
    "VLLM_NO_USAGE_STATS": "1",
    "DO_NOT_TRACK": "1",
}


def _plain(models: Path) -> list[str]:
    return [str(models / "tiny")]


def _small(models: Path) -> list[str]:
    return [str(models / "small")]


def _reasoning(models: Path) -> list[str]:
    """Return the flags of a server that separates thoughts and tool calls from text."""
    parsers = ["--reasoning-parser", "deepseek_r1", "--enable-auto-tool-choice", "--tool-call-parser", "hermes"]
    return [str(models / "reasoning"), *parsers]


def _embeddings(models: Path) -> list[str]:
    return [str(models / "tiny"), "--runner", "pooling", "--convert", "embed"]


def _adapters(models: Path) -> list[str]:
    named = [f"{name}={models / name}" for name in ADAPTERS]
    return [str(models / "tiny"), "--enable-lora", "--max-lora-rank", "8", "--max-loras", "2", "--lora-modules", *named]


# `small` is several times as slow as the others.
KINDS: Mapping[str, Callable[[Path], list[str]]] = {
    "tiny": _plain,
    "small": _small,
    "reasoning": _reasoning,
    "adapters": _adapters,
    "embeddings": _embeddings,
}


def vllm(kind: str, port: int, *, core: int | None = None, flags: Sequence[str] = ()) -> Part:
    """Return the process of a server of this kind, pinned to a core if one is given. `flags` are more of `vllm serve`.

    Build vLLM first if necessary. Raise PartError if that fails.
    """
    program, models = build()
    common: list[object] = ["--served-model-name", MODEL, "--host", "127.0.0.1", "--port", port, "--dtype", "float32"]
    common += ["--max-model-len", 8192, "--max-num-seqs", 64, "--max-num-batched-tokens", 1024]
    # Random weights would fill a JSON document with spaces.
    common += ["--structured-outputs-config", '{"backend": "xgrammar", "disable_any_whitespace": true}']
    common += ["--enable-prefix-caching", "--enable-chunked-prefill", "--enforce-eager"]
    common += ["--no-enable-log-requests", "--disable-uvicorn-access-log", *flags]
    # vLLM ends in order when this process is killed, with its own processes.
    bound = ["setpriv", "--pdeathsig", "TERM"] if shutil.which("setpriv") else []
    pinned = ["taskset", "--cpu-list", str(core)] if core is not None else []
    command = [*bound, *pinned, str(program), "serve", *KINDS[kind](models), *map(str, common)]
    env = {**os.environ, **_SETTINGS, "PATH": f"{program.parent}:{os.environ.get('PATH', '')}"}
    return Part(f"vllm-{kind}", command, [port], f"http://127.0.0.1:{port}/health", env, ready_s=_READY_S)
