"""The picker's two gRPC fronts compared: its own HTTP/2, and grpcio.

Two pickers that differ only in `--grpc-front` are measured in turn, so each round has a ratio of its own. The figure
of a ratio is the median over the rounds; its least and greatest value stand beside it.
"""

import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, replace

import numpy as np

from lab.bench.epp.bench import Bench, Figures
from lab.bench.epp.cases import Case, CaseResult, each_round
from lab.bench.epp.chunks import ALL_OBSERVED
from lab.bench.epp.extproc import REFRESH
from lab.bench.epp.gateway import Shape
from lab.bench.epp.pickers import Setting, own_picker
from lab.bench.epp.servers import model_servers
from lab.bench.epp.target import MeasuredPicker

_OWN, _GRPCIO = "own", "grpcio"
_FLAGS = {_OWN: "--grpc-front=http2", _GRPCIO: "--grpc-front=grpcio"}
_AT_ONCE = (1, 8, 32)
# CPU figures without a number in their name are measured with so many requests at once, as in the other parts.
_USUAL_AT_ONCE = 8
_OPEN = Case("open", Shape(), per_s=100)
_STREAMS = Case("streams", Shape(tokens=10), at_once=200)
_SHORT, _LONG = (Case(str(tokens), Shape(True, tokens=tokens)) for tokens in (1, 200))

Measured = Mapping[str, Mapping[str, Sequence[CaseResult]]]
"""The results of both fronts, by case, front and round."""


@dataclass(frozen=True)
class Quantity:
    """A quantity that both fronts are compared by.

    Its figures are front_own_`figure`, front_grpcio_`figure` and front_`ratio`, which is own over grpcio. Quantities
    that are read from a result name the case and the result's attribute.
    """

    title: str
    figure: str
    ratio: str
    case: str = ""
    attribute: str = ""
    higher_is_better: bool = False


def _of_requests(profile: str) -> Iterator[Quantity]:
    for n in _AT_ONCE:
        end, title = "" if n == _USUAL_AT_ONCE else f"_c{n}", f"`{profile}`, {n} at once, CPU us a request"
        yield Quantity(title, f"cpu_us_per_request_{profile}{end}", f"cpu_ratio_{profile}{end}", str(n), "cpu_us")
    middle = "" if profile == "default" else f"{profile}_"
    for n, percentile in [*((n, "p50") for n in _AT_ONCE), (max(_AT_ONCE), "p99")]:
        name, title = f"pick_{middle}c{n}_{percentile}", f"`{profile}`, {n} at once, time to the pick, {percentile} ms"
        yield Quantity(title, f"{name}_ms", f"{name}_ratio", str(n), f"picked_{percentile}_ms")


_PROFILES = {profile: tuple(_of_requests(profile)) for profile in ("default", "slo")}
_OPEN_CPU = Quantity(
    title="`default`, 100 requests/s at random times, CPU us a request",
    figure="cpu_us_per_request_default_open",
    ratio="cpu_ratio_default_open",
    case=_OPEN.name,
    attribute="cpu_us",
)
_CHUNK = Quantity("a chunk of an observed answer of 200, CPU us", "chunk_cpu_us", "chunk_cpu_ratio")
_STREAMS_PER_S = Quantity(
    title="200 streams at once, each with 10 chunks of an answer, streams/s",
    figure="streams_200_per_s",
    ratio="streams_200_ratio",
    case=_STREAMS.name,
    attribute="per_s",
    higher_is_better=True,
)
_IDLE_MEMORY = Quantity("resident before the first request, MiB", "rss_idle_mib", "rss_idle_ratio")
_MEMORY = Quantity("resident after the 100 requests/s, MiB", "rss_mib", "rss_ratio")
QUANTITIES = (
    *_PROFILES["default"],
    _OPEN_CPU,
    *_PROFILES["slo"],
    _CHUNK,
    _STREAMS_PER_S,
    _IDLE_MEMORY,
    _MEMORY,
)


def measure(bench: Bench) -> Figures:
    with model_servers(bench.endpoints, large_pages=False, first_port=bench.first_port) as endpoints:
        setting = Setting(endpoints, refresh=REFRESH)
        figures = _default(bench, setting)
        figures |= _slo(bench, replace(setting, slo=True))
        return figures | _chunk(bench, replace(setting, slo=True, flags=ALL_OBSERVED))


def _default(bench: Bench, setting: Setting) -> Figures:
    """Compare memory, requests and many streams, with the profile `default`.

    Memory grows with the number of requests, so it is compared after both fronts have served equally many.
    """
    with _both_fronts(bench, setting) as targets:
        time.sleep(bench.settle_s)
        figures = _compared(_IDLE_MEMORY, _memory(targets))
        measured = each_round(bench, targets, [_OPEN], "fronts, default, open")
        figures |= _compared(_MEMORY, _memory(targets))
        measured |= each_round(bench, targets, [*_requests(slo=False), _STREAMS], "fronts, default")
    for quantity in (_OPEN_CPU, *_PROFILES["default"], _STREAMS_PER_S):
        figures |= _read(quantity, measured)
    for front, rounds in measured.get(str(max(_AT_ONCE)), {}).items():
        figures[f"front_{front}_load_client_cores"] = float(np.median([one.client_cores for one in rounds]))
    return figures


def _slo(bench: Bench, setting: Setting) -> Figures:
    with _both_fronts(bench, setting) as targets:
        measured = each_round(bench, targets, _requests(slo=True), "fronts, slo")
    figures: Figures = {}
    for quantity in _PROFILES["slo"]:
        figures |= _read(quantity, measured)
    return figures


def _chunk(bench: Bench, setting: Setting) -> Figures:
    """Compare the CPU that each chunk after the first adds to a request whose answer is observed."""
    with _both_fronts(bench, setting) as targets:
        measured = each_round(bench, targets, [_SHORT, _LONG], "fronts, chunks")
    short, long = (measured.get(case.name, {}) for case in (_SHORT, _LONG))
    further = _LONG.shape.tokens - _SHORT.shape.tokens
    a_chunk = {
        front: [(many.cpu_us - one.cpu_us) / further for one, many in zip(short[front], long[front], strict=True)]
        for front in short.keys() & long.keys()
    }
    return _compared(_CHUNK, a_chunk)


@contextmanager
def _both_fronts(bench: Bench, setting: Setting) -> Iterator[dict[str, MeasuredPicker]]:
    with ExitStack() as stack:
        yield {
            front: stack.enter_context(own_picker(bench, replace(setting, flags=(*setting.flags, flag)), front))
            for front, flag in _FLAGS.items()
        }


def _requests(*, slo: bool) -> list[Case]:
    return [Case(str(at_once), Shape(slo), at_once) for at_once in _AT_ONCE]


def _memory(targets: Mapping[str, MeasuredPicker]) -> dict[str, list[float]]:
    return {front: [target.rss_mib] for front, target in targets.items()}


def _read(quantity: Quantity, measured: Measured) -> Figures:
    by_front = measured.get(quantity.case, {})
    return _compared(
        quantity, {front: [getattr(one, quantity.attribute) for one in rounds] for front, rounds in by_front.items()}
    )


def _compared(quantity: Quantity, values: Mapping[str, Sequence[float]]) -> Figures:
    """Return the medians of both fronts and the ratios of their rounds. Return nothing if a front has no values."""
    if values.keys() != _FLAGS.keys():
        return {}
    ratios = [own / grpcio for own, grpcio in zip(values[_OWN], values[_GRPCIO], strict=True)]
    figures = {f"front_{front}_{quantity.figure}": float(np.median(values[front])) for front in _FLAGS}
    figures[f"front_{quantity.ratio}"] = float(np.median(ratios))
    if len(ratios) > 1:
        figures |= {f"front_{quantity.ratio}_min": min(ratios), f"front_{quantity.ratio}_max": max(ratios)}
    return figures
