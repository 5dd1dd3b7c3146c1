"""The hardware to imitate: the cost of an engine's steps, and the engine's limits.

The two presets stand for a model of some 70 billion parameters on a newer and on an older pair of accelerators.
They are assumptions with the right shape, chosen for a demonstration. They measure no product. The shipped
calibrations come from measurements; `simulator/calibration/README.md` names the sources.
"""

from dataclasses import dataclass
from functools import cache
from importlib import resources
from pathlib import Path
from typing import Literal

from simulator.calibration_file import Calibration, parse_calibration
from simulator.exceptions import CalibrationError
from simulator.step_cost import LinearCost, MeasuredCost, StepCost
from simulator.surface import surface

MAX_BYTES = 1 << 20
_SHIPPED = resources.files("simulator") / "calibration"


@dataclass(frozen=True, kw_only=True)
class Hardware:
    """Hardware to imitate. The limits have vLLM's names.

    The API server hands a request to the engine after `request_ms`, and `prompt_token_ms` for each token of its prompt.
    The step that admits a request takes `request_step_ms` longer: the engine's own work for it, and that of an API
    server which shares its processor. Steps with both prompts and decodes take `mixed_step_ms` longer. With
    `reserve_prompt`, the engine admits a prompt only if blocks for all of it are free. `shared_discount` is the share
    of attention that decodes save for tokens which another sequence reads as well.
    """

    name: str
    cost: StepCost
    num_blocks: int
    block_tokens: int
    max_num_seqs: int
    max_num_batched_tokens: int
    max_model_len: int
    request_ms: float = 0.0
    prompt_token_ms: float = 0.0
    request_step_ms: float = 0.0
    mixed_step_ms: float = 0.0
    shared_discount: float = 0.0
    reserve_prompt: bool = False
    scheduling_policy: Literal["fcfs", "priority"] = "fcfs"

    def delay_ms(self, prompt_tokens: int) -> float:
        """Return the time between the arrival of a request and its arrival at the engine."""
        return self.request_ms + self.prompt_token_ms * prompt_tokens


def _preset(name: str, cost: LinearCost) -> Hardware:
    return Hardware(
        name=name,
        cost=cost,
        num_blocks=3_072,
        block_tokens=16,
        max_num_seqs=32,
        max_num_batched_tokens=1_024,
        max_model_len=32_768,
    )


PRESETS = {
    "fast": _preset(
        "fast",
        LinearCost(
            base_ms=22.0,
            prefill_ms_per_token=0.25,
            prefill_ms_per_mega_pair=8.0,
            decode_ms_per_sequence=0.2,
            decode_ms_per_kilotoken=0.25,
        ),
    ),
    "slow": _preset(
        "slow",
        LinearCost(
            base_ms=50.0,
            prefill_ms_per_token=0.75,
            prefill_ms_per_mega_pair=24.0,
            decode_ms_per_sequence=0.6,
            decode_ms_per_kilotoken=0.75,
        ),
    ),
}


def hardware(name: str) -> Hardware:
    """Return a preset, a shipped calibration, or the calibration in a CSV file. CalibrationError says what is wrong."""
    if name in PRESETS:
        return PRESETS[name]
    if name in shipped_names():
        return _shipped_hardware(name)
    if not name.endswith(".csv"):
        known = ", ".join([*PRESETS, *shipped_names()])
        raise CalibrationError(f"no hardware is called {name!r}: expected {known}, or the path of a .csv file")
    return measured_hardware(Path(name).stem, read_calibration(Path(name)))


def shipped_names() -> list[str]:
    return sorted(file.name.removesuffix(".csv") for file in _SHIPPED.iterdir() if file.name.endswith(".csv"))


def read_calibration(path: Path) -> Calibration:
    try:
        if path.stat().st_size > MAX_BYTES:
            raise CalibrationError(f"{path} is larger than {MAX_BYTES} bytes")
        text = path.read_text("utf-8-sig")
    except (OSError, UnicodeDecodeError) as error:
        raise CalibrationError(f"can't read {path}: {error}") from error
    return parse_calibration(text, str(path))


def measured_hardware(name: str, calibration: Calibration) -> Hardware:
    """Return the hardware of a calibration.

    A step takes `kernel_factor` times the table's times of its parts, plus `host_ms`.
    """
    factor, limits = calibration.kernel_factor, calibration.limits
    cost = MeasuredCost(
        surface(calibration.dense).scale(factor, calibration.host_ms),
        surface(calibration.prefill_attention).scale(factor),
        surface(calibration.decode_attention).scale(factor),
        limits["max_num_seqs"],
        limits["max_num_batched_tokens"],
    )
    return Hardware(
        name=name,
        cost=cost,
        num_blocks=limits["num_blocks"],
        block_tokens=limits["block_tokens"],
        max_num_seqs=limits["max_num_seqs"],
        max_num_batched_tokens=limits["max_num_batched_tokens"],
        max_model_len=limits["max_model_len"],
        request_ms=calibration.request_ms,
        prompt_token_ms=calibration.prompt_token_ms,
        request_step_ms=calibration.request_step_ms,
        mixed_step_ms=calibration.mixed_step_ms,
        shared_discount=calibration.shared_discount,
        reserve_prompt=calibration.reserve_prompt,
    )


@cache
def _shipped_hardware(name: str) -> Hardware:
    text = (_SHIPPED / f"{name}.csv").read_text("utf-8")
    return measured_hardware(name, parse_calibration(text, f"{name}.csv"))
