"""The time that a picker adds to a request behind a real Envoy, compared with round-robin in the same Envoy.

All settings are the defaults: TLS to the picker, and scraping every 50 ms. Answers are short and come at once.
"""

import re
import subprocess
import tempfile
import time
import urllib.request
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from headroom.gateway import envoy
from headroom.processes.ports import free_port
from lab.bench.epp.bench import Bench, Figures
from lab.bench.epp.gateway import SLO_HEADERS
from lab.bench.epp.http_load import http_load
from lab.bench.epp.pickers import Setting, own_picker, peer_picker
from lab.bench.epp.servers import model_servers
from lab.bench.figures import steps

_RATES = (100, 500)
_READY_S = 30.0
_PATIENCE_S = 10.0
_STREAMS = "ext_proc.streams_started"
_WITHOUT_PICKER = {envoy.POLICY_HEADER: envoy.ROUND_ROBIN}


@dataclass(frozen=True)
class _Gateway:
    """An Envoy, with the URL of its counters."""

    url: str
    admin_url: str

    @property
    def streams(self) -> int:
        """The number of streams that it has opened to the picker so far."""
        with urllib.request.urlopen(f"{self.admin_url}/stats?filter={_STREAMS}", timeout=10) as response:  # noqa: S310
            found = re.search(rb": (\d+)", response.read())
        return int(found[1]) if found else 0


@dataclass(frozen=True)
class _Added:
    """The time added to the median and to the 99th percentile."""

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
            added = _added_times(bench, gateways, per_s)
            for prefix, one in added.items():
                figures |= {
                    f"{prefix}envoy_added_p50_ms{end}": one.p50_ms,
                    f"{prefix}envoy_added_p99_ms{end}": one.p99_ms,
                }
            if {"", "peer_"} <= added.keys():
                ratio = bench.attempt(f"peer_added_p50_ratio{end}", _ratio, added[""], added["peer_"])
                figures |= {f"peer_added_p50_ratio{end}": ratio} if ratio else {}
    return figures


def _ratio(ours: _Added, theirs: _Added) -> float:
    """Return the ratio of added medians. Raise RuntimeError if the machine's noise is larger than an added time."""
    if min(ours.p50_ms, theirs.p50_ms) <= 0:
        raise RuntimeError(f"no added time to compare: {ours.p50_ms:.2f} and {theirs.p50_ms:.2f} ms")
    return ours.p50_ms / theirs.p50_ms


def _added_times(bench: Bench, gateways: dict[str, _Gateway], per_s: float) -> dict[str, _Added]:
    """Measure each gateway with and without its picker, in turn.

    A gateway that fails once has no figures, because its other rounds alone would look too good.
    """
    found: dict[str, list[tuple[float, float]]] = {prefix: [] for prefix in gateways}
    for _ in steps(range(bench.rounds), f"Envoy, {per_s} requests a second"):
        for prefix, gateway in gateways.items():
            if prefix not in found:
                continue
            figure = f"{prefix}envoy_added at {per_s} requests a second"
            one = bench.attempt(figure, _added_once, gateway, per_s, bench.seconds)
            if one:
                found[prefix].append(one)
            else:
                del found[prefix]
    return {prefix: _Added(*np.median(pairs, axis=0).tolist()) for prefix, pairs in found.items()}


def _added_once(gateway: _Gateway, per_s: float, seconds: float) -> tuple[float, float]:
    """Measure the added time once: the median and the 99th percentile, in ms.

    Raise RuntimeError unless Envoy asked the picker about each picked request, and about none of the others.
    """
    before = gateway.streams
    picked = http_load(gateway.url, SLO_HEADERS, per_s, seconds)
    between = gateway.streams
    bypassed = http_load(gateway.url, _WITHOUT_PICKER, per_s, seconds)
    asked, needless = between - before, gateway.streams - between
    if asked != picked.sent or needless:
        raise RuntimeError(
            f"Envoy asked the picker about {asked} of {picked.sent} requests for the picker, and about {needless} of "
            f"{bypassed.sent} requests that bypass it"
        )
    return picked.percentile_ms(50) - bypassed.percentile_ms(50), picked.percentile_ms(99) - bypassed.percentile_ms(99)


@contextmanager
def _gateway(picker: str, servers: Sequence[str], *, full_duplex: bool = False) -> Iterator[_Gateway]:
    """Run an Envoy with one worker in front of the picker. Raise RuntimeError if it doesn't start.

    If the picker is late, the request waits; if the picker is gone, the request fails. Requests without a pick would
    look fast.
    """
    port, admin_port = free_port(), free_port()
    config = envoy.bootstrap(
        port=port,
        admin_port=admin_port,
        picker_port=int(picker.rpartition(":")[2]),
        servers=servers,
        full_duplex=full_duplex,
        failure_mode="closed",
        message_timeout_s=_PATIENCE_S,
        health_checking=False,
        bypass=True,
    )
    with tempfile.TemporaryDirectory() as folder:
        file, log = Path(folder) / "envoy.json", Path(folder) / "envoy.log"
        file.write_text(config)
        command = envoy.command(file, "--concurrency", "1")
        with log.open("wb") as output:
            process = subprocess.Popen(command, stdout=output, stderr=output)
        try:
            end_s = time.monotonic() + _READY_S
            while not _is_ready(admin_port):
                if process.poll() is not None or time.monotonic() > end_s:
                    raise RuntimeError(f"Envoy did not start: {log.read_text(errors='replace')[-300:]}")
                time.sleep(0.05)
            yield _Gateway(f"http://127.0.0.1:{port}", f"http://127.0.0.1:{admin_port}")
        finally:
            process.terminate()
            process.wait()


def _is_ready(admin_port: int) -> bool:
    try:
        with urllib.request.urlopen(f"http://127.0.0.1:{admin_port}/ready", timeout=2) as response:
            return bool(response.status == 200)
    except OSError:
        return False
