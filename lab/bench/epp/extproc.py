"""The picker behind a gateway in full duplex: CPU time per request, time to the pick, requests per second.

Pages are small and are scraped once a second. So the cost of scraping, which has its own part, can be subtracted.
"""

from lab.bench.epp.bench import Bench, Figures
from lab.bench.epp.cases import Case, CaseResult, figures_by_picker, pickers, ratio, run
from lab.bench.epp.gateway import Shape
from lab.bench.epp.pickers import Setting
from lab.bench.epp.servers import model_servers
from lab.bench.epp.target import MeasuredPicker

REFRESH = "1s"
_PREDICTED = "headroom_epp_decisions_total"


def measure(bench: Bench) -> Figures:
    with model_servers(bench.endpoints, large_pages=False, first_port=bench.first_port) as endpoints:
        with pickers(bench, Setting(endpoints, refresh=REFRESH), with_peer=True) as targets:
            figures = _figures(run(bench, targets, _cases("default"), "ext_proc, default"), "default")
        return figures | _slo(bench, endpoints) | _slo_remote(bench, endpoints)


def _slo(bench: Bench, endpoints: list[str]) -> Figures:
    """Measure the slo profile. Our picker predicts in its own process. The peer's predictor isn't counted."""
    with pickers(bench, Setting(endpoints, slo=True, refresh=REFRESH), with_peer=True) as targets:
        figures = _figures(run(bench, targets, _cases("slo"), "ext_proc, slo"), "slo")
        figures |= {"rss_mib": targets["ours"].rss_mib, "slo_predicted_share": _predicted(targets["ours"], "embedded")}
        if "peer" in targets:
            figures["peer_rss_mib"] = targets["peer"].rss_mib
    return figures


def _slo_remote(bench: Bench, endpoints: list[str]) -> Figures:
    """Measure our picker with a predictor in another process, whose CPU time counts."""
    with pickers(bench, Setting(endpoints, slo=True, remote=True, refresh=REFRESH)) as targets:
        ours = targets["ours"]
        both = MeasuredPicker(ours.name, ours.address, [*ours.processes, bench.latency.predictor], ours.metrics_url)
        case = Case("c8", Shape(slo=True))
        found = run(bench, {"ours": both}, [case], "ext_proc, slo, remote")
        figures = figures_by_picker(found.get("c8"), "extproc_cpu_us_per_request_slo_remote")
        return figures | {"slo_remote_predicted_share": _predicted(ours, "remote")}


def _predicted(ours: MeasuredPicker, source: str) -> float:
    """Return the share of decisions with predictions. Cheap decisions without one would improve the figures."""
    all_decisions = ours.metric(f"{_PREDICTED}{{")
    return ours.metric(f'{_PREDICTED}{{profile="slo",source="{source}"') / all_decisions


def _cases(profile: str) -> list[Case]:
    slo = profile == "slo"
    return [
        Case("c1", Shape(slo), at_once=1),
        Case("c8", Shape(slo), at_once=8),
        Case("c32", Shape(slo), at_once=32),
        Case("open", Shape(slo), per_s=100),
        Case("40k", Shape(slo, prompt_bytes=40_000)),
        Case("400k", Shape(slo, prompt_bytes=400_000)),
    ]


def _figures(found: dict[str, dict[str, CaseResult]], profile: str) -> Figures:
    cpu = "extproc_cpu_us_per_request"
    end = "" if profile == "default" else f"_{profile}"
    figures = figures_by_picker(found.get("c8"), f"{cpu}_{profile}") | ratio(
        found.get("c8"), f"peer_cpu_ratio_{profile}"
    )
    for case in ("c1", "c32", "open"):
        figures |= figures_by_picker(found.get(case), f"{cpu}_{profile}_{case}")
        figures |= ratio(found.get(case), f"peer_cpu_ratio_{profile}_{case}")
    for prompt in ("40k", "400k"):
        figures |= figures_by_picker(found.get(prompt), f"cpu_us_per_request_{prompt}_prompt{end}")
        figures |= ratio(found.get(prompt), f"peer_cpu_ratio_{prompt}_prompt{end}")
    for case in ("c1", "c8", "c32"):
        suffix = "" if case == "c1" else f"_{case}"
        figures |= figures_by_picker(found.get(case), f"pick_{profile}{suffix}_p50_ms", "picked_p50_ms")
        figures |= figures_by_picker(found.get(case), f"pick_{profile}{suffix}_p99_ms", "picked_p99_ms")
    figures |= figures_by_picker(found.get("c32"), f"extproc_streams_per_s{end}", "per_s")
    figures |= ratio(found.get("c32"), f"peer_streams_ratio{end}", "per_s")
    figures |= figures_by_picker(found.get("c32"), f"load_client_cores{end}", "client_cores")
    return figures
