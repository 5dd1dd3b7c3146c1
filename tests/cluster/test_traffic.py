"""Send requests through a real Envoy in the picker's pod to model servers in their own pods."""

import pytest

from tests.cluster.installed import STANDALONE, Release, ask, generation, installed
from tests.live import until
from tests.node.cluster import Cluster

pytestmark = pytest.mark.slow

SLO = {"x-prediction-based-scheduling": "true", "x-slo-ttft-ms": "10000", "x-slo-tpot-ms": "1000"}
VALUES = (
    *STANDALONE,
    "--set", "inferenceExtension.sidecars.trainingServer.config.minSamplesForRetrain=20",
    "--set", "inferenceExtension.sidecars.predictionServers.config.modelSyncIntervalSec=1",
)  # fmt: skip


def latest_decision(release: Release) -> dict[str, object]:
    found: dict[str, object] = release.debug("decisions?limit=1&candidates=false")["decisions"][0]
    return found


@pytest.mark.parametrize("duplex", ["false", "true"])
def test_the_loop_closes(cluster: Cluster, duplex: str) -> None:
    """The picker observes requests, the trainer trains models on them, and predictions soon decide the routing."""
    with installed(cluster, *VALUES, "--set", f"standalone.proxy.fullDuplex={duplex}") as release:
        url = f"http://{release.address}:8081"
        until(lambda: len(release.debug("endpoints")["endpoints"]) == 2)
        assert [ask(url, number, SLO) for number in range(100)] == [200] * 100
        until(lambda: generation(release, 8001) > 0)
        until(lambda: generation(release, 8002) > 0 and generation(release, 8003) > 0)
        # On a busy machine predictions may come too late at first; the picker then pauses the late servers.
        until(lambda: ask(url, 1000, SLO) == 200 and latest_decision(release)["profile"] == "slo")
        prediction = latest_decision(release)["prediction"]
        assert isinstance(prediction, dict)
        assert prediction["source"] == "remote"
        assert ask(url, 1001) == 200
        assert latest_decision(release)["profile"] == "default"
        until(lambda: release.debug("endpoints")["in_flight"] == 0)
        assert "Succeeded" in release.helm("test")
