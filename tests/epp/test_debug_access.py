"""A picker with `--debug-access local` shows its /debug pages to callers on its own host only."""

import http.client
import json
from collections.abc import Iterator

import pytest

from tests.epp.process import PickerProcess, picker_process
from tests.live import PATIENCE_S

pytestmark = pytest.mark.slow

HERE, ELSEWHERE = "127.0.0.1", "127.0.0.2"
PAGES = ("/debug/endpoints", "/debug/decisions", "/debug/pprof/profile?seconds=0.01")


@pytest.fixture(scope="module")
def picker(tmp_path_factory: pytest.TempPathFactory) -> Iterator[PickerProcess]:
    # The variable would let every caller name another address as its own.
    env = {"EPP_DEBUG_ACCESS": "local", "FORWARDED_ALLOW_IPS": "*"}
    with picker_process(tmp_path_factory.mktemp("picker"), env=env) as found:
        yield found


def get(picker: PickerProcess, page: str, caller: str, headers: dict[str, str] | None = None) -> tuple[int, str]:
    """Return status and body of the answer to a caller at this address."""
    connection = http.client.HTTPConnection(HERE, picker.metrics_port, PATIENCE_S, (caller, 0))
    try:
        connection.request("GET", page, headers=headers or {})
        answer = connection.getresponse()
        return answer.status, answer.read().decode()
    finally:
        connection.close()


@pytest.mark.parametrize("page", PAGES)
def test_only_a_caller_on_the_same_host_reads_debug_pages(picker: PickerProcess, page: str) -> None:
    assert get(picker, page, HERE)[0] == 200
    status, body = get(picker, page, ELSEWHERE)
    assert status == 403
    assert "kubectl port-forward" in json.loads(body)["error"]


def test_a_header_does_not_change_the_callers_address(picker: PickerProcess) -> None:
    for name in ("x-forwarded-for", "forwarded", "x-real-ip"):
        assert get(picker, PAGES[0], ELSEWHERE, {name: HERE})[0] == 403
    # A proxy on this host that names its caller is believed.
    assert get(picker, PAGES[0], HERE, {"x-forwarded-for": "10.1.2.3"})[0] == 403


def test_metrics_stay_open(picker: PickerProcess) -> None:
    assert get(picker, "/metrics", ELSEWHERE)[0] == 200
