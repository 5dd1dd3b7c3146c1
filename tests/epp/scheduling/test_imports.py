import subprocess
import sys

PROGRAM = """
import sys
import epp.scheduling.configuration.config, epp.scheduling.configuration.reload, epp.scheduling.configuration.warnings
foreign = {"grpc", "envoy", "kubernetes", "kr8s", "aiohttp", "starlette", "uvicorn", "prometheus_client", "onnxruntime"}
print(sorted(foreign & {name.partition(".")[0] for name in sys.modules}))
"""


def test_scheduling_knows_no_transport_and_no_cluster() -> None:
    ran = subprocess.run([sys.executable, "-c", PROGRAM], capture_output=True, text=True, timeout=60, check=True)
    assert ran.stdout == "[]\n"
