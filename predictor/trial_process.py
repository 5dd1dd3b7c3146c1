"""`python -m predictor.trial_process`: load and run models with limits, one after the other, each in a child process.

The parent writes a trial as a line of JSON, then the model's bytes, and reads the verdict as a line of JSON. Starting
Python and importing onnxruntime takes a quarter of a second of CPU. So this process does both once, and forks for each
trial. It never loads a model itself, and ends with its input.
"""

import os
import resource
import signal
import sys
import traceback
from pathlib import Path
from typing import Final, NoReturn

import msgspec

from model_store import Manifest
from predictor.exceptions import ModelError
from predictor.loading import Limits, Source, open_model

# Memory that a model may take, beside eight times its file: parsed, optimized, and its batches.
_MEMORY_BYTES: Final = 256 << 20
_PER_MODEL_BYTE: Final = 8
# Longer verdicts are cut off. Some of onnxruntime's texts name every node.
_LONGEST_REASON: Final = 2_000


class Trial(msgspec.Struct, frozen=True):
    """What to try. The model's bytes follow, `size_bytes` of them."""

    name: str
    version: int
    size_bytes: int
    manifest: Manifest | None
    max_batch_size: int
    rows: int
    cpu_s: int


class Verdict(msgspec.Struct, frozen=True):
    """Why the model must not be loaded, empty if it may be; and the reason's kind in metrics."""

    reason: str = ""
    kind: str = "trial"


def main() -> None:
    for line in sys.stdin.buffer:
        trial = msgspec.json.decode(line, type=Trial)
        onnx = sys.stdin.buffer.read(trial.size_bytes)
        sys.stdout.buffer.write(_try_in_child(trial, onnx) + b"\n")
        sys.stdout.buffer.flush()


def _try_in_child(trial: Trial, onnx: bytes) -> bytes:
    """Return the encoded verdict of a child, which may crash or be killed."""
    ours, childs = os.pipe()
    child = os.fork()
    if child == 0:
        _end_as_child(trial, onnx, childs)
    os.close(childs)
    with open(ours, "rb") as pipe:
        said = pipe.read()
    _, status = os.waitpid(child, 0)
    if said:
        return said
    if not os.WIFSIGNALED(status):
        reason = "its trial failed; the log has the reason"
    elif os.WTERMSIG(status) == signal.SIGXCPU:
        reason = f"its trial took more than {trial.cpu_s} s of CPU"
    else:
        reason = f"its trial was ended by signal {os.WTERMSIG(status)}: it crashes, or takes too much memory"
    return msgspec.json.encode(Verdict(reason))


def _end_as_child(trial: Trial, onnx: bytes, pipe: int) -> NoReturn:
    """Write the verdict, and end without the clean-up that belongs to the parent."""
    status = 1
    try:
        os.write(pipe, msgspec.json.encode(_judge(trial, onnx)))
        status = 0
    except Exception:  # whatever it is, the parent must not go on in this process
        traceback.print_exc()
    finally:
        os._exit(status)


def _judge(trial: Trial, onnx: bytes) -> Verdict:
    memory_bytes = _MEMORY_BYTES + _PER_MODEL_BYTE * len(onnx)
    _limit(memory_bytes, trial.cpu_s)
    source = Source(trial.name, trial.version, onnx, trial.manifest, None, trial.max_batch_size)
    try:
        open_model(source, Limits(len(onnx), trial.rows), is_whole_batch=True)
    except ModelError as error:
        # The error's text begins with the model's name, which the parent adds again.
        reason = str(error).partition(": ")[2]
        if "bad_alloc" not in reason and "Failed to allocate" not in reason:
            return Verdict(reason[:_LONGEST_REASON], error.kind)
    except MemoryError:
        pass
    else:
        return Verdict()
    return Verdict(f"it takes more than {memory_bytes >> 20} MiB of memory")


def _limit(memory_bytes: int, cpu_s: int) -> None:
    _lower(resource.RLIMIT_CPU, cpu_s)
    _lower(resource.RLIMIT_CORE, 0)
    _lower(resource.RLIMIT_FSIZE, 0)
    used = Path("/proc/self/statm")
    # Only Linux tells, and enforces the limit.
    if used.exists():
        _lower(resource.RLIMIT_AS, int(used.read_text().split()[0]) * resource.getpagesize() + memory_bytes)


def _lower(kind: int, wanted: int) -> None:
    _, hard = resource.getrlimit(kind)
    limit = wanted if hard == resource.RLIM_INFINITY else min(wanted, hard)
    resource.setrlimit(kind, (limit, hard))


if __name__ == "__main__":
    main()
