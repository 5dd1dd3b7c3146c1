"""Container logs: lines with their time of arrival, in the format of the kubelet's `/containerLogs`."""

import asyncio
import os
from collections.abc import Iterable, Iterator, Mapping
from datetime import UTC, datetime, timedelta
from pathlib import Path

_CHUNK_BYTES = 1 << 16


class QueryError(Exception):
    """A parameter of the query is invalid."""


async def write_log(descriptor: int, path: Path) -> None:
    """Write a pipe's lines to a file until the other end is closed. Keep a last line without a line break, too."""
    reader = asyncio.StreamReader()
    pipe = os.fdopen(descriptor, "rb")
    transport, _ = await asyncio.get_running_loop().connect_read_pipe(
        lambda: asyncio.StreamReaderProtocol(reader), pipe
    )
    try:
        with path.open("ab", buffering=0) as file:
            rest = b""
            while chunk := await reader.read(_CHUNK_BYTES):
                *lines, rest = (rest + chunk).split(b"\n")
                file.write(b"".join(_add_times(lines)))
            file.write(b"".join(_add_times([rest] if rest else [])))
    finally:
        transport.close()


def _add_times(lines: Iterable[bytes]) -> Iterator[bytes]:
    stamp = datetime.now(UTC).strftime("%Y-%m-%dT%H:%M:%S.%f000Z").encode()
    return (b"%s %s\n" % (stamp, line) for line in lines)


def select(lines: list[bytes], query: Mapping[str, str]) -> bytes:
    """Return the log lines that kubectl asks for. Raise QueryError for an invalid parameter."""
    try:
        if "sinceSeconds" in query:
            start = datetime.now(UTC) - timedelta(seconds=int(query["sinceSeconds"]))
            lines = [line for line in lines if _time(line) >= start]
        if "sinceTime" in query:
            start = datetime.fromisoformat(query["sinceTime"])
            lines = [line for line in lines if _time(line) >= start]
        if "tailLines" in query:
            lines = lines[max(0, len(lines) - int(query["tailLines"])) :]
        text = b"".join(strip_times(lines, query))
        return text[: int(query["limitBytes"])] if "limitBytes" in query else text
    except ValueError as error:
        raise QueryError(str(error)) from error


def strip_times(lines: Iterable[bytes], query: Mapping[str, str]) -> Iterator[bytes]:
    """Strip the lines' times, unless the query asks for timestamps."""
    return iter(lines) if query.get("timestamps") == "true" else (line.partition(b" ")[2] for line in lines)


def _time(line: bytes) -> datetime:
    return datetime.fromisoformat(line[:26].decode() + "+00:00")
