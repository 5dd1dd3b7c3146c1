"""What a picker adds to a request's time behind a real Envoy: over the same Envoy that goes to the servers in turn.

Everything is as it is by default: TLS to the picker, scraping every 50 ms. Answers are short and come at once.
"""

import subprocess
import tempfile
import time
import urllib.request
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from scripts.epp_bench.bench import Bench, Figures
from scripts.epp_bench.gateway import SLO_HEADERS
from scripts.epp_bench.http_load import http_load
from scripts.epp_bench.pickers import Setting, own_picker, peer_picker
from scripts.epp_bench.servers import model_servers
from scripts.figures import steps
from scripts.loop import envoy
from scripts.trainer_bench.serving import free_port

_RATES = (100, 500)
_READY_S = 30.0
_PAST_THE_PICKER = {envoy.POLICY_HEADER: envoy.ROUND_ROBIN}


@dataclass(frozen=True)
class _Added:
    """What is added to the median and to the 99th percentile."""

    p50_ms: float
    p99_ms: float


def measure(bench: Bench) -> Figures:
    figures: Figures = {}
    with ExitStack() as stack:
        endpoints = stack.enter_context(model_servers(bench.endpoints, large_pages=False, first_port=bench.first_port))
        setting = Setting(endpoints, slo=True, secure=True)
        ours = stack.enter_context(own_picker(bench, setting)).address
        gateways = {
            "": stack.enter_context(_gateway(ours, endpoints)),
            "full_duplex_": stack.enter_context(_gateway(ours, endpoints, full_duplex=True)),
        }
        if bench.peer:
            target = bench.attempt("peer behind Envoy", stack.enter_context, peer_picker(bench, setting))
            if target:
                gateways["peer_"] = stack.enter_context(_gateway(target.address, endpoints, full_duplex=True))
        time.sleep(bench.settle_s)
        for per_s in _RATES:
            end = "" if per_s == _RATES[0] else f"_{per_s}_per_s"
            added = _added(bench, gateways, per_s)
            for prefix, one in added.items():
                figures |= {
                    f"{prefix}envoy_added_p50_ms{end}": one.p50_ms,
                    f"{prefix}envoy_added_p99_ms{end}": one.p99_ms,
                }
            if {"", "peer_"} <= added.keys():
                figures[f"peer_added_p50_ratio{end}"] = added[""].p50_ms / added["peer_"].p50_ms
    return figures


def _added(bench: Bench, gateways: dict[str, str], per_s: float) -> dict[str, _Added]:
    """Each gateway with its picker and past it, in turn."""
    found: dict[str, list[tuple[float, float]]] = {}
    for _ in steps(range(bench.rounds), f"Envoy, {per_s} requests a second"):
        for prefix, url in gateways.items():
            figure = f"{prefix}envoy_added at {per_s} requests a second"
            one = bench.attempt(figure, _added_once, url, per_s, bench.seconds)
            if one:
                found.setdefault(prefix, []).append(one)
    return {prefix: _Added(*np.median(pairs, axis=0).tolist()) for prefix, pairs in found.items()}


def _added_once(url: str, per_s: float, seconds: float) -> tuple[float, float]:
    picked, past = (http_load(url, headers, per_s, seconds) for headers in (SLO_HEADERS, _PAST_THE_PICKER))
    return picked.percentile_ms(50) - past.percentile_ms(50), picked.percentile_ms(99) - past.percentile_ms(99)


@contextmanager
def _gateway(picker: str, servers: Sequence[str], *, full_duplex: bool = False) -> Iterator[str]:
    """An Envoy with one worker in front of the picker, and its URL. RuntimeError when it doesn't come up."""
    port, admin_port = free_port(), free_port()
    config = envoy.bootstrap(
        port=port,
        admin_port=admin_port,
        picker_port=int(picker.rpartition(":")[2]),
        servers=servers,
        full_duplex=full_duplex,
    )
    with tempfile.TemporaryDirectory() as folder:
        file, log = Path(folder) / "envoy.json", Path(folder) / "envoy.log"
        file.write_text(config)
        command = [str(envoy.binary()), "-c", str(file), "--concurrency", "1", "-l", "warning", "--use-dynamic-base-id"]
        with log.open("wb") as output:
            process = subprocess.Popen(command, stdout=output, stderr=output)
        try:
            end_s = time.monotonic() + _READY_S
            while not _is_ready(admin_port):
                if process.poll() is not None or time.monotonic() > end_s:
                    raise RuntimeError(f"Envoy did not come up: {log.read_text(errors='replace')[-300:]}")
                time.sleep(0.05)
            yield f"http://127.0.0.1:{port}"
        finally:
            process.terminate()
            process.wait()


def _is_ready(admin_port: int) -> bool:
    try:
        with urllib.request.urlopen(f"http://127.0.0.1:{admin_port}/ready", timeout=2) as response:
            return bool(response.status == 200)
    except OSError:
        return False
