"""Test a picker process with Kubernetes flags, against a real API server."""

import signal
from pathlib import Path

import pytest

from epp.extproc.messages import DESTINATION_HEADER
from epp.kubernetes.leader import lease_name
from tests.epp.parts import set_headers
from tests.epp.process import Stream, picker_process, token
from tests.kubernetes.namespace import Namespace
from tests.live import PATIENCE_S, call, until

pytestmark = pytest.mark.slow


def flags(kubeconfig: Path, namespace: Namespace, *more: str) -> tuple[str, ...]:
    return ("--kubeconfig", str(kubeconfig), "--pool-name", "pool", "--pool-namespace", namespace.name, *more)


async def test_requests_go_to_the_pods_of_the_pool(tmp_path: Path, kubeconfig: Path, namespace: Namespace) -> None:
    namespace.add_pod("server-a", "10.0.0.1")
    with picker_process(tmp_path, *flags(kubeconfig, namespace), endpoints="") as picker:
        assert not picker.is_serving()
        assert picker.is_serving("liveness")
        namespace.set_pool()
        until(picker.is_serving)
        async with picker.channel() as channel:
            answer = await Stream(channel).pick()
            assert set_headers(answer)[DESTINATION_HEADER] == "10.0.0.1:8000"
            assert "headroom_epp_kubernetes_pool_changes_total 1.0" in picker.metrics()
            namespace.set_objective("batch", -10)
            until(lambda: "1 objectives of" in picker.log.read_text())
            # An endpoint that was never scraped counts as saturated, so a sheddable request is shed.
            shed = (await Stream(channel).pick({"x-gateway-inference-objective": "batch"})).immediate_response
            assert shed.status.code == 429
            assert "retry-after" in {option.header.key for option in shed.headers.set_headers}
            namespace.remove_pool()
            until(lambda: not picker.is_serving())
            assert (await Stream(channel).pick()).immediate_response.status.code == 503


def test_the_metrics_need_a_token_with_metrics_endpoint_auth(
    tmp_path: Path, kubeconfig: Path, namespace: Namespace
) -> None:
    namespace.set_pool()
    with picker_process(tmp_path, *flags(kubeconfig, namespace, "--metrics-endpoint-auth"), endpoints="") as picker:
        assert call(f"{picker.url}/metrics")[0] == 401


async def test_one_of_two_replicas_is_ready_until_it_ends(
    tmp_path: Path, kubeconfig: Path, namespace: Namespace
) -> None:
    namespace.set_pool()
    namespace.add_pod("server-a", "10.0.0.1")
    elected = flags(kubeconfig, namespace, "--ha-enable-leader-election", "--drain-timeout", "1m")
    here = {"NAMESPACE": namespace.name}
    first_folder, second_folder = tmp_path / "first", tmp_path / "second"
    first_folder.mkdir()
    second_folder.mkdir()
    with picker_process(first_folder, *elected, endpoints="", env=here | {"POD_NAME": "first"}) as first:
        until(first.is_serving)
        with picker_process(second_folder, *elected, endpoints="", env=here | {"POD_NAME": "second"}) as second:
            assert not second.is_serving()
            assert namespace.lease(lease_name(namespace.name, "pool"))["holderIdentity"] == "first"
            # The second replica leads while the first one still finishes a stream.
            async with first.channel() as channel:
                stream = Stream(channel)
                await stream.pick()
                first.process.send_signal(signal.SIGTERM)
                until(second.is_serving)
                assert first.in_flight() == 1
                await stream.respond(token("a"))
                await stream.end()
            assert first.process.wait(PATIENCE_S) == 0
            assert namespace.lease(lease_name(namespace.name, "pool"))["holderIdentity"] == "second"
            assert "headroom_epp_leader_transitions_total 1.0" in second.metrics()
