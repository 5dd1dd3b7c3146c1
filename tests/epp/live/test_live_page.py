"""The live page's addresses on a picker process: who may read them, and what they answer for all workers."""

import http.client
import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.epp.process import PickerProcess, Stream, picker_process
from tests.live import PATIENCE_S, call, until

pytestmark = pytest.mark.slow

HERE, ELSEWHERE, TOKEN = "127.0.0.1", "127.0.0.2", "tell-nobody-4711"
SECRET = "a-prompt-nobody-may-see"
BODY = json.dumps({"model": "m", "messages": [{"role": "user", "content": SECRET}]}).encode()
EVENT = b'data: {"choices":[{"delta":{"content":"hidden-answer"}}]}\n\n'


@pytest.fixture(scope="module")
def picker(tmp_path_factory: pytest.TempPathFactory) -> Iterator[PickerProcess]:
    folder = tmp_path_factory.mktemp("picker")
    (folder / "token").write_text(f"{TOKEN}\n")
    with picker_process(folder, "--workers", "2", "--live-page", "--live-page-token-file", f"{folder}/token") as found:
        yield found


@pytest.fixture(scope="module")
def closed(tmp_path_factory: pytest.TempPathFactory) -> Iterator[PickerProcess]:
    """A picker whose page is only for its own host."""
    with picker_process(tmp_path_factory.mktemp("closed"), "--live-page") as found:
        yield found


def get(
    picker: PickerProcess, path: str, caller: str = HERE, **headers: str
) -> tuple[int, http.client.HTTPMessage, str]:
    connection = http.client.HTTPConnection(HERE, picker.metrics_port, PATIENCE_S, (caller, 0))
    try:
        connection.request("GET", path, headers={name.replace("_", "-"): value for name, value in headers.items()})
        answer = connection.getresponse()
        return answer.status, answer.headers, answer.read().decode()
    finally:
        connection.close()


async def serve(picker: PickerProcess, request_id: str, **headers: str) -> None:
    """Serve a request to its end, through a connection of its own, which any worker may get."""
    async with picker.channel() as channel:
        stream = Stream(channel)
        await stream.pick({"x-request-id": request_id} | {k.replace("_", "-"): v for k, v in headers.items()}, BODY)
        await stream.respond(EVENT, EVENT)
        await stream.end()


def decisions(picker: PickerProcess) -> list[dict[str, Any]]:
    found: list[dict[str, Any]] = call(f"{picker.url}/live/api/decisions?limit=100")[1]["decisions"]
    return found


def test_without_its_flag_there_is_no_page(tmp_path: Path) -> None:
    with picker_process(tmp_path) as picker:
        assert get(picker, "/live/")[0] == 404


def test_only_callers_on_the_same_host_get_the_page(closed: PickerProcess) -> None:
    status, headers, body = get(closed, "/live/")
    assert status == 200
    assert "default-src 'self'" in headers["content-security-policy"]
    assert SECRET not in body
    status, _, body = get(closed, "/live/api/state", ELSEWHERE)
    assert status == 403
    assert "--live-page-token-file" in json.loads(body)["error"]
    # A page of another site that has pointed its own name to this host.
    assert get(closed, "/live/api/state", host="evil.example:9090")[0] == 403
    assert get(closed, "/live/api/state", host=f"localhost:{closed.metrics_port}")[0] == 200
    assert get(closed, "/metrics", ELSEWHERE)[0] == 200


def test_a_caller_elsewhere_needs_the_token(picker: PickerProcess) -> None:
    assert get(picker, "/live/api/state", ELSEWHERE)[0] == 401
    assert get(picker, "/live/api/state", ELSEWHERE, authorization="Bearer wrong")[0] == 401
    assert get(picker, "/live/api/state", ELSEWHERE, authorization=f"Bearer {TOKEN}", host="pool.example")[0] == 200


def test_a_browser_keeps_the_token_in_a_cookie_that_scripts_cannot_read(picker: PickerProcess) -> None:
    status, headers, _ = get(picker, f"/live/?token={TOKEN}&x=1", ELSEWHERE)
    assert (status, headers["location"]) == (303, "/live/?x=1")
    cookie = headers["set-cookie"]
    assert {"HttpOnly", "SameSite=strict", "Path=/live"} <= {part.strip() for part in cookie.split(";")}
    assert get(picker, "/live/", ELSEWHERE, cookie=cookie.split(";")[0])[0] == 200
    assert get(picker, "/live/", ELSEWHERE, cookie="headroom-live=wrong")[0] == 401


def test_a_missing_token_file_is_an_error_at_the_start(tmp_path: Path) -> None:
    with (
        pytest.raises(AssertionError),
        picker_process(tmp_path, "--live-page", "--live-page-token-file", f"{tmp_path}/none"),
    ):
        pass
    assert "--live-page-token-file: can't read" in (tmp_path / "picker.log").read_text()


async def test_the_page_tells_of_the_requests_of_all_workers(picker: PickerProcess) -> None:
    for number in range(12):
        await serve(picker, f"r-{number}", x_slo_ttft_ms="60000")
    found = decisions(picker)
    assert {f"r-{number}" for number in range(12)} <= {one["request_id"] for one in found}
    assert {one["is_met"] for one in found if one["request_id"].startswith("r-")} == {True}
    state = call(f"{picker.url}/live/api/state")[1]
    assert state["pool"]["name"] == ["a", "b"]
    assert {len(column) for column in state["pool"].values()} == {2}
    assert {scorer["name"] for scorer in state["profiles"]["default"]["scorers"]} >= {"queue-scorer"}
    groups = [group for step in state["steps"] for group in step["groups"]]
    assert sum(group["met"] for group in groups) >= 12


async def test_no_prompt_and_no_answer_is_shown_anywhere(picker: PickerProcess) -> None:
    await serve(picker, "secret")
    pages = [get(picker, f"/live/api/{name}")[2] for name in ("state", "decisions?limit=1000", "models", "comparison")]
    pages.append(json.dumps(call(f"{picker.url}/live/api/what-if", {"request_id": "secret"})[1]))
    assert all(SECRET not in page and "hidden-answer" not in page for page in pages)


async def test_any_worker_decides_again_about_a_request_of_another(picker: PickerProcess) -> None:
    await serve(picker, "once")
    # New connections reach both workers.
    for _ in range(8):
        status, told = call(f"{picker.url}/live/api/what-if", {"request_id": "once", "slo_ttft_ms": 5.0})
        assert status == 200
        assert told["was"]["decision"]["slo_ttft_ms"] is None
        assert told["would_be"]["decision"]["slo_ttft_ms"] == 5.0
        assert any("It went to" in line for line in told["was"]["words"])


def test_a_question_without_predictions_says_why_and_who_would_be_picked(picker: PickerProcess) -> None:
    status, told = call(f"{picker.url}/live/api/ask", {"input_tokens": 100, "slo_ttft_ms": 100})
    assert status == 200
    assert told["decision"]["prediction_error"] == "prediction is not enabled"
    assert told["decision"]["endpoint"] in ("a", "b")


@pytest.mark.parametrize(
    ("path", "body", "status", "reason"),
    [
        ("ask", b"{", 422, "truncated"),
        ("ask", {"input_tokens": 0}, 422, "input_tokens"),
        ("ask", {"input_tokens": 1, "cached": 2}, 422, "cached"),
        ("ask", {"input_tokens": 1, "slo_ttft_ms": -1}, 422, "slo_ttft_ms"),
        ("ask", {"input_tokens": 1, "prompt": "x"}, 422, "prompt"),
        ("ask", {"input_tokens": 1, "cached_on": "z"}, 422, "cached_on"),
        ("ask", b"[" * 100_000, 413, "larger"),
        ("ask", b"[" * 60_000, 422, ""),
        ("what-if", {"request_id": "unknown"}, 404, "unknown"),
        ("what-if", {}, 422, "request_id"),
        ("decisions?limit=0", None, 400, "limit"),
        ("decisions?limit=1001", None, 400, "limit"),
        ("models", None, 404, "prediction is not enabled"),
        ("comparison", None, 404, "--live-comparison-file"),
    ],
)
def test_what_cannot_be_answered_is_refused_with_the_reason(
    picker: PickerProcess, path: str, body: object, status: int, reason: str
) -> None:
    found, answer = call(f"{picker.url}/live/api/{path}", body)
    assert found == status
    assert reason in answer["error"]


def test_a_wrong_weight_is_refused_by_its_name(picker: PickerProcess) -> None:
    asked = {"request_id": "once", "weights": {"nobody": 1}}
    assert call(f"{picker.url}/live/api/what-if", asked)[0] in (404, 422)


def test_events_come_as_long_as_the_page_is_open_and_only_so_many_pages(closed: PickerProcess) -> None:
    connections = []
    try:
        for _ in range(40):
            connection = http.client.HTTPConnection(HERE, closed.metrics_port, PATIENCE_S)
            connections.append(connection)
            connection.request("GET", "/live/api/events")
        answers = [connection.getresponse() for connection in connections]
        assert sorted({answer.status for answer in answers}) == [200, 503]
        events = next(answer for answer in answers if answer.status == 200)
        moments: list[float] = []
        while len(moments) < 2:
            line = events.readline()
            if line.startswith(b"data: "):
                moments.append(json.loads(line.removeprefix(b"data: "))["at"])
        assert moments[0] < moments[1]
    finally:
        for connection in connections:
            connection.close()
    # Their places are free again.
    until(lambda: _opens(closed))


def _opens(picker: PickerProcess) -> bool:
    connection = http.client.HTTPConnection(HERE, picker.metrics_port, PATIENCE_S)
    try:
        connection.request("GET", "/live/api/events")
        return connection.getresponse().status == 200
    finally:
        connection.close()


def test_a_comparison_is_shown_as_its_file_has_it(tmp_path: Path) -> None:
    file = tmp_path / "comparison.json"
    with picker_process(tmp_path, "--live-page", "--live-comparison-file", str(file)) as picker:
        assert call(f"{picker.url}/live/api/comparison")[0] == 404
        file.write_text('{"policies": []}')
        assert call(f"{picker.url}/live/api/comparison") == (200, {"policies": []})
        file.write_text('{"policies": [')
        assert call(f"{picker.url}/live/api/comparison")[0] == 404
