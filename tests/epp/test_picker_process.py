"""The picker as a process: what only shows when all parts run together."""

import asyncio
import json
import os
import signal
import ssl
import urllib.request
from contextlib import suppress
from pathlib import Path

import psutil
import pytest
from prometheus_client.parser import text_string_to_metric_families

from epp.extproc.messages import DESTINATION_HEADER
from epp.extproc.tls import self_signed
from lab.chaos.limits import exhaust_descriptors
from tests.epp.parts import set_headers
from tests.epp.process import PickerProcess, Stream, picker_process, token
from tests.live import PATIENCE_S, until

pytestmark = pytest.mark.slow

# Metrics of the gateway API's picker that dashboards query.
CONTRACT = {
    *(
        f"inference_model_{name}"
        for name in (
            "request_total",
            "request_error_total",
            "request_duration_seconds",
            "request_sizes",
            "response_sizes",
            "input_tokens",
            "output_tokens",
            "running_requests",
            "normalized_time_per_output_token_seconds",
            *(
                f"request_{kind}{latency}{suffix}"
                for latency in ("ttft", "tpot")
                for kind, suffix in (
                    ("", "_seconds"),
                    ("", "_seconds_gauge"),
                    ("predicted_", "_seconds"),
                    ("predicted_", "_seconds_gauge"),
                    ("", "_prediction_duration_seconds"),
                    ("", "_prediction_duration_seconds_gauge"),
                    ("", "_slo_violation"),
                    ("", "_slo_violation_total"),
                    ("", "_slo_threshold_seconds"),
                )
            ),
        )
    ),
    *(
        f"inference_pool_{name}"
        for name in ("average_kv_cache_utilization", "average_queue_size", "ready_pods", "per_pod_queue_size")
    ),
    *(
        f"inference_extension_{name}"
        for name in (
            "scheduler_e2e_duration_seconds",
            "plugin_duration_seconds",
            "prefix_indexer_size",
            "prefix_indexer_hit_ratio",
            "prefix_indexer_hit_bytes",
            "info",
        )
    ),
}


def samples(page: str) -> dict[tuple[str, ...], float]:
    """Values by name and label values."""
    families = text_string_to_metric_families(page)
    return {(s.name, *s.labels.values()): s.value for family in families for s in family.samples}


async def test_every_metric_of_the_contract_is_there(tmp_path: Path) -> None:
    with picker_process(tmp_path) as picker:
        async with picker.channel() as channel:
            stream = Stream(channel)
            answer = await stream.pick({"x-slo-ttft-ms": "0.001"})
            assert set_headers(answer)[DESTINATION_HEADER] in ("127.0.0.1:1", "127.0.0.1:2")
            await stream.respond(token("a"), token("b"))
            await stream.end()
        until(lambda: picker.in_flight() == 0)
        page = picker.metrics()
    named = {line.split()[2] for line in page.splitlines() if line.startswith("# TYPE")}
    assert named >= CONTRACT
    values = samples(page)
    assert values["inference_model_request_total", "m", "m"] == 1
    assert values["inference_extension_plugin_duration_seconds_count", "Scorer", "queue-scorer", "queue-scorer"] == 1
    assert values["inference_model_request_ttft_slo_violation_total", "m", "m"] == 1
    assert values["inference_model_output_tokens_sum", "m", "m"] == 2
    # The least interval, or that of an idle picker.
    assert values["headroom_epp_scrape_interval_seconds", "a"] in (0.05, 1.0)
    assert "headroom_epp_endpoint_prefix_hit_ratio" in named


@pytest.mark.parametrize("front", ["http2", "grpcio"])
async def test_workers_share_a_port_and_their_in_flight_counts(tmp_path: Path, front: str) -> None:
    with picker_process(tmp_path, "--workers", "2", "--grpc-front", front) as picker:
        channels = [picker.channel() for _ in range(8)]
        streams = [Stream(channels[number % len(channels)]) for number in range(40)]
        await asyncio.gather(*(stream.pick() for stream in streams))
        # The kernel distributes connections, so each request may reach another worker.
        assert {picker.in_flight() for _ in range(10)} == {40}
        assert samples(picker.metrics())["inference_model_running_requests", "m"] == 40
        for stream in streams[:15]:
            stream.cancel()
        await asyncio.gather(*(stream.end() for stream in streams[15:]))
        until(lambda: picker.in_flight() == 0)
        assert samples(picker.metrics())["inference_model_request_total", "m", "m"] == 40
        for channel in channels:
            await channel.close()
        assert picker.stop() == 0


async def test_a_killed_workers_requests_leave_the_in_flight_counts(tmp_path: Path) -> None:
    with picker_process(tmp_path, "--workers", "2") as picker:
        channels = [picker.channel() for _ in range(8)]
        await asyncio.gather(*(Stream(channel).pick() for channel in channels))
        assert picker.in_flight() == 8
        for worker in _children(picker):
            os.kill(worker, signal.SIGKILL)
        until(lambda: picker.log.read_text().count("starting another") == 2)
        until(lambda: _answers_in_flight(picker) == 0)
        for channel in channels:
            await channel.close()
        async with picker.channel() as channel:
            answer = await Stream(channel).pick()
            assert DESTINATION_HEADER in set_headers(answer)


def _children(picker: PickerProcess) -> list[int]:
    return [child.pid for child in psutil.Process(picker.process.pid).children()]


def _answers_in_flight(picker: PickerProcess) -> int | None:
    try:
        return picker.in_flight()
    except OSError:
        return None


async def test_open_streams_finish_after_a_signal(tmp_path: Path) -> None:
    with picker_process(tmp_path) as picker:
        async with picker.channel() as channel:
            stream = Stream(channel)
            await stream.pick()
            picker.process.send_signal(signal.SIGTERM)
            until(lambda: "stopping: 1 requests in flight" in picker.log.read_text())
            await stream.respond(token("a"))
            await stream.end()
        assert picker.process.wait(PATIENCE_S) == 0


async def test_requests_are_accepted_after_a_signal_until_a_second_one(tmp_path: Path) -> None:
    with picker_process(tmp_path, "--shutdown-delay", "1h") as picker:
        assert picker.is_serving()
        picker.process.send_signal(signal.SIGTERM)
        until(lambda: not picker.is_serving())
        assert picker.is_serving("liveness")
        async with picker.channel() as channel:
            stream = Stream(channel)
            assert DESTINATION_HEADER in set_headers(await stream.pick())
            await stream.respond(token("a"))
            await stream.end()
        assert picker.stop() == 0


async def test_a_changed_configuration_is_applied_and_an_invalid_one_ignored(tmp_path: Path) -> None:
    config = tmp_path / "config.yaml"
    head = "apiVersion: inference.networking.x-k8s.io/v1alpha1\nkind: EndpointPickerConfig\n"
    config.write_text(head + "plugins:\n- type: random-picker\n")
    with picker_process(tmp_path, "--config-file", str(config)) as picker:
        new = tmp_path / "new.yaml"
        new.write_text(head + "plugins:\n- type: header-based-testing-filter\n- type: max-score-picker\n")
        os.replace(new, config)
        until(lambda: samples(picker.metrics())["headroom_epp_config_reloads_total",] == 1)
        async with picker.channel() as channel:
            wanted = {"test-epp-endpoint-selection": "10.9.9.9"}
            assert (await Stream(channel).pick(wanted)).immediate_response.status.code == 503
            config.write_text(head + "plugins:\n- type: no-such-plugin\n")
            until(lambda: samples(picker.metrics())["headroom_epp_config_reload_failures_total",] == 1)
            assert "no-such-plugin" in picker.log.read_text()
            assert (await Stream(channel).pick(wanted)).immediate_response.status.code == 503


def test_logs_can_be_json(tmp_path: Path) -> None:
    flags = ("--zap-encoder", "json", "-v", "4", "--refresh-prometheus-metrics-interval", "5s")
    with picker_process(tmp_path, *flags, env={"LATENCY_MAX_BULK_SIZE": "100"}) as picker:
        picker.stop()
        lines = [json.loads(line) for line in picker.log.read_text().splitlines()]
    assert {"ts", "level", "logger", "msg"} <= lines[0].keys()
    messages = "\n".join(line["msg"] for line in lines)
    assert "--refresh-prometheus-metrics-interval has no effect" in messages
    assert "LATENCY_MAX_BULK_SIZE is set and not used" in messages


def test_the_metrics_port_can_be_served_over_tls(tmp_path: Path) -> None:
    key, certificate = self_signed()
    (tmp_path / "tls.key").write_bytes(key)
    (tmp_path / "tls.crt").write_bytes(certificate)
    trusting = ssl.create_default_context(cafile=str(tmp_path / "tls.crt"))
    flags = ("--metrics-cert-dir", str(tmp_path), "--metrics-client-ca-file", str(tmp_path / "tls.crt"))
    with picker_process(tmp_path, *flags) as picker:
        url = f"https://localhost:{picker.metrics_port}/metrics"
        with pytest.raises(OSError, match=r"certificate required|closed|reset"):
            urllib.request.urlopen(url, context=trusting)
        trusting.load_cert_chain(tmp_path / "tls.crt", tmp_path / "tls.key")
        with urllib.request.urlopen(url, context=trusting) as response:
            assert b"inference_pool_ready_pods" in response.read()


async def test_a_picker_without_descriptors_says_so_and_goes_on_with_what_it_has(tmp_path: Path) -> None:
    with picker_process(tmp_path) as picker:
        async with picker.channel() as channel:
            assert set_headers(await Stream(channel).pick())[DESTINATION_HEADER]
            lift = exhaust_descriptors([picker.process.pid])
            try:
                for _ in range(20):
                    # The kernel connects. The picker can't accept, and ends the connection.
                    reader, writer = await asyncio.open_connection("127.0.0.1", picker.grpc_port)
                    with suppress(ConnectionError):
                        assert await asyncio.wait_for(reader.read(1), PATIENCE_S) == b""
                    writer.close()
                await asyncio.to_thread(until, lambda: "no descriptors are left" in picker.log.read_text())
                assert set_headers(await Stream(channel).pick())[DESTINATION_HEADER]
            finally:
                lift()
            await asyncio.to_thread(until, lambda: "descriptors are free again" in picker.log.read_text())
        async with picker.channel() as channel:
            assert set_headers(await Stream(channel).pick())[DESTINATION_HEADER]
        assert picker.log.read_text().count("no descriptors") == 1
