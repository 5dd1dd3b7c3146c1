"""Interpolation errors of a table: each row is left out and interpolated from its neighbours."""

from collections.abc import Iterator, Mapping
from statistics import median

from simulator.calibration_file import PARTS, Calibration
from simulator.hardware import measured_hardware
from simulator.surface import Points, surface

LeftOut = Iterator[tuple[tuple[int, int], float]]


def left_out(points: Points) -> LeftOut:
    """Yield (tokens, context) and the interpolation error in ms of every row between two others, along both axes."""
    for axis in (0, 1):
        lines: dict[int, list[tuple[int, int]]] = {}
        for at in sorted(points):
            lines.setdefault(at[1 - axis], []).append(at)
        for line in lines.values():
            for before, at, after in zip(line, line[1:], line[2:], strict=False):
                share = (at[axis] - before[axis]) / (after[axis] - before[axis])
                guess_ms = points[before] + share * (points[after] - points[before])
                yield at, guess_ms - points[at]


def left_out_errors(points: Points, part: str, calibration: Calibration) -> dict[str, float]:
    """Return the median and worst interpolation error, in percent of the row and of a step that consists of the row."""
    cost = measured_hardware("checked", calibration).cost
    of_row, of_step = [], []
    for (tokens, context), error_ms in left_out(points):
        ms = points[tokens, context]
        step_ms = cost.dense_ms(tokens) + (0.0 if part == "dense" else calibration.kernel_factor * ms)
        of_row.append(100 * abs(error_ms) / max(ms, 1e-9))
        of_step.append(100 * abs(error_ms) * calibration.kernel_factor / step_ms)
    figures: dict[str, float] = {}
    for name, errors in ((f"{part}_left_out", of_row), (f"{part}_left_out_of_step", of_step)):
        if errors:
            figures |= {f"{name}_median_pct": median(errors), f"{name}_worst_pct": max(errors)}
    return figures


def raised_or_lowered(points: Points) -> float:
    """Return the largest change of a row by making the table monotone, in percent."""
    made = surface(points)
    rows = {tokens: row for row, tokens in enumerate(made.tokens.tolist())}
    columns = {context: column for column, context in enumerate(made.contexts.tolist())}
    return max(
        100 * abs(float(made.ms[rows[tokens], columns[context]]) - ms) / max(ms, 1e-9)
        for (tokens, context), ms in points.items()
    )


def figures_of(calibration: Calibration, measured_points: Mapping[str, Points]) -> dict[str, float]:
    """Return each part's errors of left-out rows, and the largest change by making it monotone."""
    found: dict[str, float] = {}
    for part in PARTS:
        points = measured_points[part]
        found |= left_out_errors(points, part, calibration) | {f"{part}_monotone_pct": raised_or_lowered(points)}
    return found


def decode_steps(calibration: Calibration, context: int) -> dict[str, float]:
    """Return the times in ms of steps of decodes, and of their kernels alone."""
    cost = measured_hardware("checked", calibration).cost
    found = {}
    for batch in (1, 32, 128, 256):
        step_ms = cost.dense_ms(batch) + cost.decode_attention_ms(batch, batch * context)
        found[f"decode_{batch}x{context}_ms"] = step_ms
        found[f"decode_{batch}x{context}_kernels_ms"] = (step_ms - calibration.host_ms) / calibration.kernel_factor
    return found
