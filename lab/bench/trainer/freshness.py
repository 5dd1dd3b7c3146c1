"""The time from a changed law to a changed prediction of a predictor, with real processes."""

import threading
import time
from pathlib import Path

import msgspec
from rich.progress import track

from lab.bench.trainer.law import make_entries
from lab.bench.trainer.serving import ask, own_server, send, trainer_flags

# Factor of latencies under the slower law.
_FACTOR = 2.0
_ROWS_AT_ONCE = 10
# Seconds for predictions to settle after a change.
_SETTLED_S = 5.0
# Seconds after which a change counts as never predicted.
_GIVE_UP_S = 120.0
_PROBE = {
    "kv_cache_percentage": 0.5,
    "input_token_length": 2000,
    "num_request_waiting": 2,
    "num_request_running": 16,
    "prefix_cache_score": 0.5,
    "prefill_tokens_in_flight": 10_000,
}


def freshness(folder: Path, rows_per_s: float, interval_s: float, sync_s: float, changes: int) -> list[float]:
    """Return, for each change of the law, the seconds until half of it is predicted.

    Changes to slower and to faster alternate.
    """
    flags = trainer_flags(folder, interval_s)
    reading = ["--grpc-port", "0", "--model-store", str(folder / "store"), "--model-sync-interval-sec", str(sync_s)]
    with own_server("trainer", *flags) as (trainer, _), own_server("predictor", *reading) as (predictor, _):
        with _Feed(trainer, rows_per_s) as feed:
            for seed in range(10):
                send(trainer, make_entries(1_000, seed))
            settled = _settled(predictor)
            waits = []
            for _ in track(range(changes), "freshness"):
                slower = feed.factor == 1.0
                feed.factor = _FACTOR if slower else 1.0
                changed_at = time.monotonic()
                half = settled * (_FACTOR**0.5 if slower else _FACTOR**-0.5)
                while (_predicted(predictor) < half) == slower:
                    if time.monotonic() - changed_at > _GIVE_UP_S:
                        raise RuntimeError(f"a changed law was not predicted within {_GIVE_UP_S:g} s")
                    time.sleep(0.02)
                waits.append(time.monotonic() - changed_at)
                time.sleep(_SETTLED_S)
                settled = _settled(predictor)
        return waits


class _Feed:
    """Sends rows at an even rate while it is open. `factor` multiplies their latencies."""

    def __init__(self, url: str, rows_per_s: float) -> None:
        self.factor = 1.0
        self._url = url
        self._pause_s = _ROWS_AT_ONCE / rows_per_s
        self._stopped = threading.Event()
        self._thread = threading.Thread(target=self._run)

    def __enter__(self) -> "_Feed":
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._stopped.set()
        self._thread.join()

    def _run(self) -> None:
        seed = 1_000
        while not self._stopped.wait(self._pause_s):
            seed += 1
            send(self._url, make_entries(_ROWS_AT_ONCE, seed, self.factor))


def _predicted(url: str) -> float:
    return float(ask(f"{url}/v1/ttft", msgspec.json.encode(_PROBE))[1]["ttft_ms"])


def _settled(url: str) -> float:
    """Wait until there is a model, and return its prediction."""
    while True:
        try:
            return _predicted(url)
        except OSError:
            time.sleep(0.1)
