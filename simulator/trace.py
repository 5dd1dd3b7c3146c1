"""Request traces: when requests came, how long their prompts and their answers were."""

import csv
import itertools
import math
from collections.abc import Sequence
from dataclasses import dataclass, replace
from importlib import resources
from pathlib import Path

from simulator.exceptions import TraceError

_COLUMNS = ("arrival_s", "prompt_tokens", "output_tokens")


@dataclass(frozen=True, slots=True)
class TraceRequest:
    arrival_s: float
    prompt_tokens: int
    output_tokens: int


def load_trace(path: Path | None = None) -> list[TraceRequest]:
    """A CSV file with the columns arrival_s, prompt_tokens and output_tokens; without a path, the trace that ships.

    TraceError names the line that is wrong; requests have to be in order of arrival.
    """
    source = path or resources.files("simulator") / "traces" / "azure-2023-conversation.csv"
    try:
        text = source.read_text("utf-8")
    except (OSError, UnicodeDecodeError) as error:
        raise TraceError(f"can't read {source}: {error}") from error
    reader = csv.DictReader(text.splitlines())
    missing = set(_COLUMNS) - set(reader.fieldnames or ())
    if missing:
        raise TraceError(f"{source}, line 1: no column {sorted(missing)[0]}")
    trace: list[TraceRequest] = []
    try:
        for row in reader:
            where = f"{source}, line {reader.line_num}"
            request = _request(row, where)
            if trace and request.arrival_s < trace[-1].arrival_s:
                raise TraceError(f"{where}: arrives before the request above it")
            trace.append(request)
    except csv.Error as error:
        raise TraceError(f"{source}, line {reader.line_num + 1}: {error}") from error
    if not trace:
        raise TraceError(f"{source}: no requests")
    return trace


def scale_rate(trace: Sequence[TraceRequest], requests_per_s: float) -> list[TraceRequest]:
    """The same requests with their gaps stretched or shrunk to a mean rate, from time 0; ValueError unless above 0."""
    if not 0 < requests_per_s < math.inf:
        raise ValueError(f"requests_per_s: expected a rate above 0, got {requests_per_s}")
    if len(trace) < 2:
        return [replace(request, arrival_s=0.0) for request in trace]
    start, span_s = trace[0].arrival_s, trace[-1].arrival_s - trace[0].arrival_s
    factor = (len(trace) - 1) / requests_per_s / span_s if span_s else 0.0
    return [replace(request, arrival_s=(request.arrival_s - start) * factor) for request in trace]


def window(trace: Sequence[TraceRequest], first: int, requests_per_s: float, seconds: float) -> list[TraceRequest]:
    """As many requests from the `first` on as fill `seconds` at a mean rate; the trace goes round when it ends."""
    count = max(2, round(requests_per_s * seconds))
    laps = [trace[(first + index) % len(trace)] for index in range(count)]
    arrival_s, placed = 0.0, laps[:1]
    for earlier, later in itertools.pairwise(laps):
        arrival_s += max(0.0, later.arrival_s - earlier.arrival_s)
        placed.append(replace(later, arrival_s=arrival_s))
    placed[0] = replace(placed[0], arrival_s=0.0)
    return scale_rate(placed, requests_per_s)


def cap_lengths(trace: Sequence[TraceRequest], max_prompt: int, max_output: int) -> list[TraceRequest]:
    """Longer prompts and outputs are cut to these lengths in tokens."""
    return [
        replace(r, prompt_tokens=min(r.prompt_tokens, max_prompt), output_tokens=min(r.output_tokens, max_output))
        for r in trace
    ]


def _request(row: dict[str, str | None], where: str) -> TraceRequest:
    try:
        arrival_s, prompt, output = (float(row[column] or "") for column in _COLUMNS)
    except ValueError as error:
        raise TraceError(f"{where}: {error}") from error
    # Written so that not-a-number fails too.
    if not (0 <= arrival_s < math.inf and 1 <= prompt < math.inf and 1 <= output < math.inf):
        raise TraceError(f"{where}: expected an arrival of at least 0 and lengths of at least 1")
    return TraceRequest(arrival_s, int(prompt), int(output))
