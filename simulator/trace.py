"""Request traces: arrival times, and the lengths of prompts and answers."""

import itertools
import math
from collections.abc import Sequence
from dataclasses import replace
from importlib import resources
from importlib.resources.abc import Traversable

from simulator.trace_formats import TraceRequest, parse_trace, read_text

__all__ = [
    "AZURE_CODE",
    "AZURE_CONVERSATION",
    "MOONCAKE_CONVERSATION",
    "MOONCAKE_SYNTHETIC",
    "TraceRequest",
    "cap_lengths",
    "load_trace",
    "scale_rate",
    "window",
]

# The shipped samples. Their sources and licences are in the same directory.
_TRACES = resources.files("simulator") / "traces"
AZURE_CONVERSATION = _TRACES / "azure-2023-conversation.csv"
AZURE_CODE = _TRACES / "azure-2023-code.csv.gz"
MOONCAKE_CONVERSATION = _TRACES / "mooncake-fast25-conversation.jsonl.gz"
MOONCAKE_SYNTHETIC = _TRACES / "mooncake-fast25-synthetic.jsonl.gz"


def load_trace(path: Traversable | None = None) -> list[TraceRequest]:
    """Return the requests of a trace file; without a path, those of the shipped sample of Azure's.

    The file may be packed by gzip. It is CSV with the columns arrival_s, prompt_tokens and output_tokens, CSV with the
    columns of Azure's public traces, or JSON lines as Mooncake publishes them. The content decides which. Requests must
    be in order of arrival. TraceError names the wrong line.
    """
    source = path or AZURE_CONVERSATION
    return parse_trace(read_text(source), str(source))


def scale_rate(trace: Sequence[TraceRequest], requests_per_s: float) -> list[TraceRequest]:
    """Return the same requests from time 0 on, with gaps scaled to a mean rate. ValueError unless the rate is > 0."""
    if not 0 < requests_per_s < math.inf:
        raise ValueError(f"requests_per_s: expected a rate above 0, got {requests_per_s}")
    if len(trace) < 2:
        return [replace(request, arrival_s=0.0) for request in trace]
    start, span_s = trace[0].arrival_s, trace[-1].arrival_s - trace[0].arrival_s
    factor = (len(trace) - 1) / requests_per_s / span_s if span_s else 0.0
    return [replace(request, arrival_s=(request.arrival_s - start) * factor) for request in trace]


def window(trace: Sequence[TraceRequest], first: int, requests_per_s: float, seconds: float) -> list[TraceRequest]:
    """Return the requests from index `first` on that fill `seconds` at a mean rate. The trace repeats at its end."""
    count = max(2, round(requests_per_s * seconds))
    laps = [trace[(first + index) % len(trace)] for index in range(count)]
    arrival_s, placed = 0.0, laps[:1]
    for earlier, later in itertools.pairwise(laps):
        arrival_s += max(0.0, later.arrival_s - earlier.arrival_s)
        placed.append(replace(later, arrival_s=arrival_s))
    placed[0] = replace(placed[0], arrival_s=0.0)
    return scale_rate(placed, requests_per_s)


def cap_lengths(trace: Sequence[TraceRequest], max_prompt: int, max_output: int) -> list[TraceRequest]:
    """Cut prompts and outputs to these lengths, in tokens."""
    return [
        replace(r, prompt_tokens=min(r.prompt_tokens, max_prompt), output_tokens=min(r.output_tokens, max_output))
        for r in trace
    ]
