"""Calibration files: lines of `# key: value`, then a CSV table of times.

The table's columns are part, tokens, context and ms. The meaning of tokens and context depends on the part:

- `dense`: tokens are the new tokens of a step; context is 0.
- `prefill_attention`: tokens are the new tokens of one prompt; context is the tokens before them.
- `decode_attention`: tokens are the sequences in the batch; context is the tokens of each.
"""

import csv
import math
from collections.abc import Mapping
from dataclasses import dataclass

from simulator.exceptions import CalibrationError
from simulator.surface import Points

TEXTS = ("gpu", "model", "source", "licence")
LIMITS = ("num_blocks", "block_tokens", "max_num_seqs", "max_num_batched_tokens", "max_model_len")
TIMES = ("host_ms", "kernel_factor")
# A file may leave these out. The first two are the API server's time for a request before the engine gets it; the next
# two the times by which a new request, and prompts beside decodes, make a step longer. Then comes the share of
# attention that is saved for tokens which another sequence reads as well. The last one is whether the engine admits a
# prompt only if all of it fits (1) or if its first piece does (0).
OPTIONAL = ("request_ms", "prompt_token_ms", "request_step_ms", "mixed_step_ms", "shared_discount", "reserve_prompt")
COLUMNS = ("part", "tokens", "context", "ms")
PARTS = ("dense", "prefill_attention", "decode_attention")
_LARGEST = 100_000_000
# Bounds of memory: `MeasuredCost` keeps a row of times per batch size, and one time per step size.
_LARGEST_OF = {"max_num_seqs": 4_096, "max_num_batched_tokens": 1_000_000}
# Bounds the length of these rows.
_MOST_CONTEXTS = 256


@dataclass(frozen=True, slots=True, kw_only=True)
class Calibration:
    """A calibration file's content.

    Times are in ms, as measured. A step takes `kernel_factor` times the kernels' time, plus `host_ms`.
    A request reaches the engine `request_ms` after it was sent, plus `prompt_token_ms` for each token of its prompt.
    The step that admits it takes `request_step_ms` longer, and each step with both prompts and decodes `mixed_step_ms`.
    `shared_discount` is the share of attention that is saved for tokens which another sequence reads as well. With
    `reserve_prompt`, the engine admits a prompt only if blocks for all of it are free. `notes` are free text.
    """

    texts: Mapping[str, str]
    limits: Mapping[str, int]
    host_ms: float
    kernel_factor: float
    dense: Points
    prefill_attention: Points
    decode_attention: Points
    request_ms: float = 0.0
    prompt_token_ms: float = 0.0
    request_step_ms: float = 0.0
    mixed_step_ms: float = 0.0
    shared_discount: float = 0.0
    reserve_prompt: bool = False
    notes: tuple[str, ...] = ()


def parse_calibration(text: str, where: str) -> Calibration:
    """Parse a calibration file. CalibrationError names the wrong line of the file `where`."""
    lines = text.splitlines()
    count = next((number for number, line in enumerate(lines) if not line.startswith("#")), len(lines))
    values, notes = _header(lines[:count], where)
    points = _points(lines[count:], count, where)
    for part in PARTS:
        _require_some(points[part], part, where)
    return Calibration(
        texts={key: values[key] for key in TEXTS},
        limits={key: _limit(values[key], f"{where}: {key}", _LARGEST_OF.get(key, _LARGEST)) for key in LIMITS},
        host_ms=_number(values["host_ms"], f"{where}: host_ms", least=0.0),
        kernel_factor=_number(values["kernel_factor"], f"{where}: kernel_factor", least=0.01),
        request_ms=_number(values.get("request_ms", "0"), f"{where}: request_ms", least=0.0),
        prompt_token_ms=_number(values.get("prompt_token_ms", "0"), f"{where}: prompt_token_ms", least=0.0),
        request_step_ms=_number(values.get("request_step_ms", "0"), f"{where}: request_step_ms", least=0.0),
        mixed_step_ms=_number(values.get("mixed_step_ms", "0"), f"{where}: mixed_step_ms", least=0.0),
        shared_discount=_number(values.get("shared_discount", "0"), f"{where}: shared_discount", least=0.0, most=1.0),
        reserve_prompt=_limit(values.get("reserve_prompt", "0"), f"{where}: reserve_prompt", 1, least=0) == 1,
        notes=tuple(notes),
        **points,
    )


def format_calibration(calibration: Calibration) -> str:
    """Format a calibration so that `parse_calibration` can read it."""
    header: dict[str, object] = dict(calibration.texts)
    header |= calibration.limits
    header |= {"host_ms": calibration.host_ms, "kernel_factor": calibration.kernel_factor}
    header |= {key: f"{value:.5g}" for key in OPTIONAL if (value := getattr(calibration, key))}
    lines = [f"# {key}: {value}" for key, value in header.items()]
    lines += [f"# note: {note}" for note in calibration.notes]
    lines.append(",".join(COLUMNS))
    for part in PARTS:
        points: Points = getattr(calibration, part)
        lines += [f"{part},{tokens},{context},{ms:.5g}" for (tokens, context), ms in sorted(points.items())]
    return "\n".join(lines) + "\n"


def _header(lines: list[str], where: str) -> tuple[dict[str, str], list[str]]:
    required = {*TEXTS, *LIMITS, *TIMES}
    known = {*required, *OPTIONAL}
    values: dict[str, str] = {}
    notes: list[str] = []
    for number, line in enumerate(lines, 1):
        key, colon, value = (part.strip() for part in line.lstrip("#").partition(":"))
        if not colon or not value:
            raise CalibrationError(f"{where}, line {number}: expected '# key: value'")
        if key == "note":
            notes.append(value)
        elif key not in known or key in values:
            problem = "given twice" if key in values else f"unknown: expected {', '.join(sorted(known))} or note"
            raise CalibrationError(f"{where}, line {number}: {key} is {problem}")
        else:
            values[key] = value
    missing = sorted(required - values.keys())
    if missing:
        raise CalibrationError(f"{where}: no line '# {missing[0]}: ...' at the top")
    return values, notes


def _points(lines: list[str], above: int, where: str) -> dict[str, dict[tuple[int, int], float]]:
    reader = csv.reader(lines, strict=True)
    points: dict[str, dict[tuple[int, int], float]] = {part: {} for part in PARTS}
    try:
        if tuple(next(reader, ())) != COLUMNS:
            raise CalibrationError(f"{where}, line {above + 1}: expected the columns {','.join(COLUMNS)}")
        for row in reader:
            line = f"{where}, line {above + reader.line_num}"
            part, at, ms = _row(row, line)
            if at in points[part]:
                raise CalibrationError(f"{line}: {part} with {at[0]} tokens and context {at[1]} is given twice")
            points[part][at] = ms
    except csv.Error as error:
        raise CalibrationError(f"{where}, line {above + reader.line_num}: {error}") from error
    return points


def _row(row: list[str], line: str) -> tuple[str, tuple[int, int], float]:
    if len(row) != len(COLUMNS):
        raise CalibrationError(f"{line}: expected {len(COLUMNS)} fields, got {len(row)}")
    part, tokens, context, ms = (field.strip() for field in row)
    if part not in PARTS:
        raise CalibrationError(f"{line}: part {part!r}: expected one of {', '.join(PARTS)}")
    at = _limit(tokens, f"{line}: tokens"), _limit(context, f"{line}: context", least=0)
    if part == "dense" and at[1]:
        raise CalibrationError(f"{line}: context: expected 0, since dense depends on tokens alone")
    return part, at, _number(ms, f"{line}: ms", least=0.0)


def _require_some(points: Points, part: str, where: str) -> None:
    """Check that the part has enough rows for slopes, and not too many contexts.

    A slope needs two points in each direction. Contexts beyond `_MOST_CONTEXTS` add memory and no information.
    """
    by_tokens: dict[int, int] = {}
    for tokens, _ in points:
        by_tokens[tokens] = by_tokens.get(tokens, 0) + 1
    if len(by_tokens) < 2:
        raise CalibrationError(f"{where}: {part}: expected rows of at least two numbers of tokens")
    if part != "dense" and (lonely := [tokens for tokens, count in by_tokens.items() if count < 2]):
        raise CalibrationError(f"{where}: {part}: expected at least two contexts with tokens {lonely[0]}")
    if (count := len({context for _, context in points})) > _MOST_CONTEXTS:
        raise CalibrationError(f"{where}: {part}: expected at most {_MOST_CONTEXTS} different contexts, got {count}")


def _limit(text: str, what: str, most: int = _LARGEST, *, least: int = 1) -> int:
    # int() alone would also accept signs, underscores and digits of other scripts.
    if not (text.isascii() and text.isdigit() and len(text) <= 12 and least <= int(text) <= most):
        raise CalibrationError(f"{what}: expected a whole number from {least} to {most}, got {text!r}")
    return int(text)


def _number(text: str, what: str, *, least: float, most: float = 1e6) -> float:
    try:
        value = float(text)
    except ValueError:
        value = math.nan
    # Written so that NaN fails too.
    if not least <= value <= most:
        limit = f"{most:g}".replace("e+0", "e")
        raise CalibrationError(f"{what}: expected a number from {least:g} to {limit}, got {text!r}")
    return value
