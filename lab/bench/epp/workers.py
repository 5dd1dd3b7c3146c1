"""Several worker processes on one port: their decisions per second, compared with those of one."""

from lab.bench.epp.bench import Bench, Figures
from lab.bench.epp.cases import Case, pickers, run
from lab.bench.epp.extproc import REFRESH
from lab.bench.epp.gateway import Shape
from lab.bench.epp.pickers import Setting, has_flag
from lab.bench.epp.servers import model_servers

_WORKERS = (1, 2)


def measure(bench: Bench) -> Figures:
    """Measure one and two workers. The load client uses the same cores, so on two cores the ratio stays below 2."""
    if not has_flag("--workers"):
        bench.leave_out("workers_2_over_1", "the picker has no flag --workers")
        return {}
    per_s: dict[int, float] = {}
    figures: Figures = {}
    # The kernel spreads connections over the workers. So there are many, as from many Envoys.
    case = Case("c32", Shape(), at_once=32, connections=16)
    with model_servers(bench.endpoints, large_pages=False, first_port=bench.first_port) as endpoints:
        for workers in _WORKERS:
            setting = Setting(endpoints, refresh=REFRESH, flags=[f"--workers={workers}"])
            with pickers(bench, setting) as targets:
                found = run(bench, targets, [case], f"{workers} workers").get("c32", {})
                figures[f"workers_{workers}_rss_mib"] = targets["ours"].rss_mib
            if "ours" in found:
                per_s[workers] = figures[f"workers_{workers}_streams_per_s"] = found["ours"].per_s
    if len(per_s) == len(_WORKERS):
        figures["workers_2_over_1"] = per_s[2] / per_s[1]
    return figures
