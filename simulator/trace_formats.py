"""Parsers of the formats of request traces: this project's CSV, Azure's CSV, and Mooncake's JSON lines.

Every error names the file and the line.
"""

import csv
import gzip
import io
import math
import zlib
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from datetime import datetime
from importlib.resources.abc import Traversable

import msgspec

from simulator.exceptions import TraceError

# The largest public file is some 1.5 GB: a week of Azure's 2024 traces.
MAX_TRACE_BYTES = 2 << 30
# Prompt tokens per hash id in Mooncake's traces.
HASH_TOKENS = 512

_OWN = ("arrival_s", "prompt_tokens", "output_tokens")
_AZURE = ("TIMESTAMP", "ContextTokens", "GeneratedTokens")


@dataclass(frozen=True, slots=True)
class TraceRequest:
    """A request of a trace.

    `hashes` has an id for each whole piece of `HASH_TOKENS` prompt tokens, if the trace has ids. Equal ids mean equal
    prompts up to and including that piece.
    """

    arrival_s: float
    prompt_tokens: int
    output_tokens: int
    hashes: tuple[int, ...] = ()


class _MooncakeLine(msgspec.Struct):
    """A line of Mooncake's files: ms since the trace's start, and lengths in tokens.

    The last id may stand for a piece of fewer than `HASH_TOKENS` tokens.
    """

    timestamp: int
    input_length: int
    output_length: int
    hash_ids: list[int]


def read_text(source: Traversable) -> str:
    """Return a file's text, unpacked if the content is gzip's. TraceError says why the file can't be read."""
    try:
        with source.open("rb") as file:
            data = file.read(MAX_TRACE_BYTES + 1)
        if data.startswith(b"\x1f\x8b"):
            with gzip.GzipFile(fileobj=io.BytesIO(data)) as packed:
                data = packed.read(MAX_TRACE_BYTES + 1)
        if len(data) > MAX_TRACE_BYTES:
            raise TraceError(f"{source}: more than {MAX_TRACE_BYTES >> 20} MiB; keep only the part to replay")
        return data.decode("utf-8-sig")
    except (OSError, EOFError, zlib.error, UnicodeDecodeError) as error:
        raise TraceError(f"can't read {source}: {error}") from error


def parse_trace(text: str, source: str) -> list[TraceRequest]:
    """Return the requests of a file in any of the formats, in order of arrival. The content decides the format.

    TraceError names the wrong line.
    """
    rows = _mooncake_rows(text, source) if text.lstrip().startswith("{") else _csv_rows(text, source)
    trace: list[TraceRequest] = []
    for where, request in rows:
        # Written so that NaN fails too.
        if not (0 <= request.arrival_s < math.inf and request.prompt_tokens >= 1 and request.output_tokens >= 1):
            raise TraceError(f"{where}: expected an arrival time of at least 0 and lengths of at least 1")
        if trace and request.arrival_s < trace[-1].arrival_s:
            raise TraceError(f"{where}: arrives before the request above it")
        trace.append(request)
    if not trace:
        raise TraceError(f"{source}: no requests")
    return trace


def _csv_rows(text: str, source: str) -> Iterator[tuple[str, TraceRequest]]:
    reader = csv.DictReader(text.splitlines())
    try:
        columns = set(reader.fieldnames or ())
        azure = _AZURE[0] in columns
        missing = [name for name in (_AZURE if azure else _OWN) if name not in columns]
        if missing:
            raise TraceError(
                f"{source}, line 1: no column {missing[0]}; expected {','.join(_AZURE if azure else _OWN)}"
            )
        start: datetime | None = None
        for row in reader:
            where = f"{source}, line {reader.line_num}"
            if azure:
                time = _timestamp(row, where)
                start = start or time
                yield where, _azure_request(row, _seconds(time, start, where), where)
            else:
                yield where, _own_request(row, where)
    except csv.Error as error:
        raise TraceError(f"{source}, line {reader.line_num + 1}: {error}") from error


def _own_request(row: dict[str, str | None], where: str) -> TraceRequest:
    try:
        arrival_s, prompt, output = (float(row[column] or "") for column in _OWN)
        return TraceRequest(arrival_s, int(prompt), int(output))
    except (ValueError, OverflowError) as error:
        raise TraceError(f"{where}: expected three numbers: {error}") from error


def _timestamp(row: dict[str, str | None], where: str) -> datetime:
    try:
        return datetime.fromisoformat(row["TIMESTAMP"] or "")
    except ValueError as error:
        raise TraceError(f"{where}: TIMESTAMP: {error}") from error


def _seconds(time: datetime, start: datetime, where: str) -> float:
    try:
        return (time - start).total_seconds()
    except TypeError as error:
        raise TraceError(f"{where}: TIMESTAMP: some lines have a time zone and some don't") from error


def _azure_request(row: dict[str, str | None], arrival_s: float, where: str) -> TraceRequest:
    if arrival_s < 0:
        raise TraceError(f"{where}: arrives before the request above it")
    return TraceRequest(arrival_s, _length(row, "ContextTokens", where), _length(row, "GeneratedTokens", where))


def _length(row: dict[str, str | None], column: str, where: str) -> int:
    try:
        return int(row[column] or "")
    except ValueError as error:
        raise TraceError(f"{where}: {column}: {error}") from error


def _mooncake_rows(text: str, source: str) -> Iterator[tuple[str, TraceRequest]]:
    decode = msgspec.json.Decoder(_MooncakeLine).decode
    # The id before each id. An id stands for the whole prompt so far, so it can follow only one other id.
    follows: dict[int, int] = {}
    for number, line in enumerate(text.splitlines(), start=1):
        if not line.strip():
            continue
        where = f"{source}, line {number}"
        try:
            row = decode(line)
        except (msgspec.DecodeError, RecursionError) as error:
            raise TraceError(f"{where}: {error}") from error
        pieces = -(-row.input_length // HASH_TOKENS)
        if len(row.hash_ids) != pieces:
            raise TraceError(
                f"{where}: hash_ids: expected {pieces}, one for each {HASH_TOKENS} tokens of the prompt,"
                f" got {len(row.hash_ids)}"
            )
        _check_prefixes(row.hash_ids, follows, where)
        whole = tuple(row.hash_ids[: row.input_length // HASH_TOKENS])
        yield where, TraceRequest(row.timestamp / 1000, row.input_length, row.output_length, whole)


def _check_prefixes(hash_ids: Sequence[int], follows: dict[int, int], where: str) -> None:
    before = -1
    for hash_id in hash_ids:
        if hash_id < 0:
            raise TraceError(f"{where}: hash_ids: expected numbers of at least 0, got {hash_id}")
        if follows.setdefault(hash_id, before) != before:
            raise TraceError(f"{where}: hash_ids: {hash_id} follows another id than in an earlier line")
        before = hash_id
