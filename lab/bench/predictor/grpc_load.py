"""A load generator for gRPC, with concurrent calls over one channel. It runs as a process of its own.

The generator is Python too, so it may be the bottleneck. The server's CPU time is therefore measured in addition.
"""

import asyncio
import json
import subprocess
import sys
import time
from pathlib import Path

import grpc
import numpy as np

from lab.bench.predictor.load import MeasuredServer
from model_store import SCHEMAS

_METHOD = "/inference.GRPCInferenceService/ModelInfer"
_ROOT = Path(__file__).parents[3]


def grpc_load(address: str, target: MeasuredServer, connections: int, seconds: float) -> dict[str, float]:
    """Ask for single predictions of one model. Return requests/s, latencies, and the server's CPU time per request."""
    command = [sys.executable, "-m", __name__, address, str(connections), str(seconds)]
    before_s = target.cpu_s
    output = subprocess.run(command, cwd=_ROOT, capture_output=True, text=True, check=True).stdout
    spent_s = target.cpu_s - before_s
    took_ms = np.array(json.loads(output))
    return {
        f"grpc_single_rps_c{connections}": len(took_ms) / seconds,
        f"grpc_single_p50_ms_c{connections}": float(np.percentile(took_ms, 50)),
        f"grpc_single_p99_ms_c{connections}": float(np.percentile(took_ms, 99)),
        f"grpc_single_cpu_us_per_request_c{connections}": spent_s * 1e6 / len(took_ms),
    }


def _request() -> bytes:
    from predictor.protocol.inference_pb2 import ModelInferRequest

    names = [feature.name for feature in SCHEMAS["ttft"] if feature.required]
    request = ModelInferRequest(model_name="ttft")
    for name in names:
        request.inputs.add(name=name, datatype="FP32", shape=[1, 1])
        request.raw_input_contents.append(np.float32(0.5).tobytes())
    return request.SerializeToString()


async def _ask(address: str, connections: int, seconds: float) -> list[float]:
    request, took_ms = _request(), []
    async with grpc.aio.insecure_channel(address) as channel:
        call = channel.unary_unary(_METHOD)
        await call(request)
        end_s = time.perf_counter() + seconds

        async def repeat() -> None:
            while (began_s := time.perf_counter()) < end_s:
                await call(request)
                took_ms.append((time.perf_counter() - began_s) * 1000)

        await asyncio.gather(*(repeat() for _ in range(connections)))
    return took_ms


if __name__ == "__main__":
    where, at_once, lasting_s = sys.argv[1:]
    sys.stdout.write(json.dumps(asyncio.run(_ask(where, int(at_once), float(lasting_s)))))
