"""A predictor in a process of its own, with its HTTP and gRPC servers."""

import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from headroom.processes.ports import free_port
from tests.live import call, until


@dataclass(frozen=True)
class Predictor:
    http: str
    grpc: str
    process: "subprocess.Popen[str]"

    @property
    def url(self) -> str:
        return f"http://{self.http}"


@contextmanager
def predictor_process(store: Path | str, *flags: str) -> Iterator[Predictor]:
    http_port, grpc_port = free_port(), free_port()
    command = [sys.executable, "-m", "predictor", "--host", "127.0.0.1", "--model-store", str(store)]
    command += ["--port", str(http_port), "--grpc-port", str(grpc_port), "--model-sync-interval-sec", "0.05", *flags]
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True) as process:
        predictor = Predictor(f"127.0.0.1:{http_port}", f"127.0.0.1:{grpc_port}", process)
        try:
            until(lambda: _is_alive(predictor))
            yield predictor
        finally:
            process.kill()


def _is_alive(predictor: Predictor) -> bool:
    try:
        return call(f"{predictor.url}/v2/health/live")[0] == 200
    except OSError:
        assert predictor.process.poll() is None, predictor.process.communicate()[0]
        return False
