"""The cost of an answer's chunks: all sent to the picker, all observed as well, or none sent."""

from dataclasses import replace

from lab.bench.epp.bench import Bench, Figures
from lab.bench.epp.cases import Case, figures_by_picker, pickers, ratio, run
from lab.bench.epp.extproc import REFRESH
from lab.bench.epp.gateway import Shape
from lab.bench.epp.pickers import Setting
from lab.bench.epp.servers import model_servers

ALL_OBSERVED = ("--observed-responses-per-second=1000000", "--observed-tokens-per-second=1000000000")
_NONE_OBSERVED = ("--observed-responses-per-second=0",)
_SHORT, _LONG = 1, 1000


def measure(bench: Bench) -> Figures:
    with model_servers(bench.endpoints, large_pages=False, first_port=bench.first_port) as endpoints:
        setting = Setting(endpoints, slo=True, refresh=REFRESH)
        figures = _every_chunk_sent(bench, setting)
        figures |= _every_chunk_observed(bench, replace(setting, flags=ALL_OBSERVED))
        return figures | _none_sent(bench, replace(setting, flags=_NONE_OBSERVED))


def _every_chunk_sent(bench: Bench, setting: Setting) -> Figures:
    """Measure full duplex, where every chunk is sent, with the picker's default observation."""
    cases = [Case(str(tokens), Shape(True, tokens=tokens)) for tokens in (_SHORT, 10, 200, _LONG)]
    with pickers(bench, setting, with_peer=True) as targets:
        found = run(bench, targets, cases, "chunks")
    figures: Figures = {}
    for tokens in (10, 200, _LONG):
        figures |= figures_by_picker(found.get(str(tokens)), f"extproc_cpu_us_per_request_slo_{tokens}_chunks")
        figures |= ratio(found.get(str(tokens)), f"peer_cpu_ratio_slo_{tokens}_chunks")
    for target, prefix in (("ours", ""), ("peer", "peer_")):
        few, many = (found.get(str(tokens), {}).get(target) for tokens in (_SHORT, _LONG))
        if few and many:
            figures[f"{prefix}chunk_cpu_us"] = (many.cpu_us - few.cpu_us) / (_LONG - _SHORT)
    return figures


def _every_chunk_observed(bench: Bench, setting: Setting) -> Figures:
    cases = [Case(str(tokens), Shape(True, tokens=tokens)) for tokens in (_SHORT, 200)]
    with pickers(bench, setting) as targets:
        found = run(bench, targets, cases, "chunks, all observed")
    if len(found) < 2:
        return {}
    return {"observed_chunk_cpu_us": (found["200"]["ours"].cpu_us - found[str(_SHORT)]["ours"].cpu_us) / (200 - _SHORT)}


def _none_sent(bench: Bench, setting: Setting) -> Figures:
    """Measure an Envoy that buffers the request and sends no chunk, because the picker asks for none."""
    cases = [Case(str(tokens), Shape(True, tokens=tokens, full_duplex=False)) for tokens in (_SHORT, _LONG)]
    with pickers(bench, setting) as targets:
        found = run(bench, targets, cases, "chunks, none sent")
    if len(found) < 2:
        return {}
    few, many = found[str(_SHORT)]["ours"].cpu_us, found[str(_LONG)]["ours"].cpu_us
    return {"extproc_cpu_us_per_request_slo_buffered": few, "cpu_ratio_1000_to_1_tokens": many / few}
