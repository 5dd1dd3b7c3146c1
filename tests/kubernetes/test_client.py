"""Test the client with answers that a real API server gives rarely or never."""

import asyncio
import json
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import pytest
import yaml
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from epp.kubernetes.access import connect
from epp.kubernetes.client import Client, Selection, WatchEvent
from epp.kubernetes.exceptions import ApiError, ExpiredError, UnreachableError
from epp.kubernetes.objects import OBJECTIVES, PODS, Pod

EVERYTHING = Selection("models")


@asynccontextmanager
async def answering(folder: Path, chunks: Sequence[bytes], status: int = 200) -> AsyncIterator[Client]:
    """Return a client of a server that answers every request with these chunks of a body."""

    async def answer(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.readuntil(b"\r\n\r\n")
        writer.write(b"HTTP/1.1 %d Said\r\nTransfer-Encoding: chunked\r\nConnection: close\r\n\r\n" % status)
        for chunk in filter(None, chunks):
            writer.write(b"%x\r\n%s\r\n" % (len(chunk), chunk))
            await writer.drain()
        writer.write(b"0\r\n\r\n")
        writer.close()

    server = await asyncio.start_server(answer, "127.0.0.1", 0)
    url = f"http://127.0.0.1:{server.sockets[0].getsockname()[1]}"
    config = {
        "clusters": [{"name": "c", "cluster": {"server": url}}],
        "contexts": [{"name": "c", "context": {"cluster": "c"}}],
        "current-context": "c",
    }
    path = folder / "config.yaml"
    path.write_text(yaml.safe_dump(config))
    async with server, connect(str(path)) as client:
        yield client


def change(kind: str, name: str = "pod", version: str = "1", **fields: Any) -> bytes:
    return json.dumps(
        {"type": kind, "object": {"metadata": {"name": name, "resourceVersion": version}, **fields}}
    ).encode()


async def watched(client: Client) -> list[WatchEvent[Pod]]:
    return [event async for event in client.watch(PODS, EVERYTHING, "1")]


@given(
    st.lists(st.integers(1, 40), min_size=1), st.lists(st.sampled_from(["ADDED", "MODIFIED", "DELETED", "BOOKMARK"]))
)
@settings(max_examples=25, suppress_health_check=[HealthCheck.function_scoped_fixture])
async def test_events_are_read_from_chunks_of_any_size(tmp_path: Path, sizes: list[int], kinds: list[str]) -> None:
    text = b"".join(change(kind, f"pod-{i}", str(i)) + b"\n" for i, kind in enumerate(kinds))
    chunks, start = [], 0
    for i in range(len(text)):
        if start >= len(text):
            break
        chunks.append(text[start : start + sizes[i % len(sizes)]])
        start += sizes[i % len(sizes)]
    async with answering(tmp_path, chunks) as client:
        events = await watched(client)
    assert [event.version for event in events] == [str(i) for i in range(len(kinds))]
    assert [event.name for event in events] == ["" if k == "BOOKMARK" else f"pod-{i}" for i, k in enumerate(kinds)]
    assert [event.object is not None for event in events] == [kind in {"ADDED", "MODIFIED"} for kind in kinds]


async def test_an_undecodable_object_counts_as_deleted(tmp_path: Path) -> None:
    lines = change("ADDED", "bad", "7", status={"podIP": 5}) + b"\n" + change("ADDED", "good", "8") + b"\n"
    async with answering(tmp_path, [lines]) as client:
        bad, good = await watched(client)
    assert (bad.name, bad.object) == ("bad", None)
    assert good.object is not None
    page = {"metadata": {"resourceVersion": "9"}, "items": [{"metadata": {"name": "bad"}, "spec": {}}]}
    async with answering(tmp_path, [json.dumps(page).encode()]) as client:
        assert (await client.list(OBJECTIVES, EVERYTHING)).items == {}


@pytest.mark.parametrize("status", [200, 410])
async def test_a_version_that_is_too_old_raises_expired_error(tmp_path: Path, status: int) -> None:
    said = {"kind": "Status", "code": 410, "message": "too old resource version"}
    body = said if status == 410 else {"type": "ERROR", "object": said}
    async with answering(tmp_path, [json.dumps(body).encode(), b"\n"], status) as client:
        with pytest.raises(ExpiredError, match="too old"):
            await watched(client)


@pytest.mark.parametrize(
    ("body", "said"),
    [(b'{"message": "slow down", "code": 429}', "slow down"), (b"<html>", "<html>"), (b"", "no reason")],
)
async def test_a_refusals_error_has_the_servers_message(tmp_path: Path, body: bytes, said: str) -> None:
    async with answering(tmp_path, [body], 429) as client:
        with pytest.raises(ApiError, match=said) as refused:
            await client.list(PODS, EVERYTHING)
    assert refused.value.status == 429


@pytest.mark.parametrize(
    "body", [b"<html>\n", b"[]\n", b'{"type": "ADDED"}\n', b'{"type": "ADDED", "object": 3}\n', b"\n"]
)
async def test_an_answer_in_another_format_is_an_error(tmp_path: Path, body: bytes) -> None:
    async with answering(tmp_path, [body]) as client:
        with pytest.raises(UnreachableError, match="an answer that is no"):
            await watched(client)
        with pytest.raises(UnreachableError, match="an answer that is no"):
            await client.list(PODS, EVERYTHING)


async def test_a_line_that_is_too_long_is_an_error(tmp_path: Path) -> None:
    async with answering(tmp_path, [b"x" * (1 << 20)] * 9) as client:
        with pytest.raises(UnreachableError, match="a line of more than 8388608 bytes"):
            await watched(client)
