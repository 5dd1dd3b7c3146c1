"""The files that request traces are published in: this project's CSV, Azure's CSV, and Mooncake's JSON lines.

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

# The largest of the public files, a week of Azure's 2024 traces, is some 1.5 GB.
MAX_TRACE_BYTES = 2 << 30
# What one of Mooncake's hash ids stands for, in tokens of the prompt.
HASH_TOKENS = 512

_OWN = ("arrival_s", "prompt_tokens", "output_tokens")
_AZURE = ("TIMESTAMP", "ContextTokens", "GeneratedTokens")


@dataclass(frozen=True, slots=True)
class TraceRequest:
    """`hashes` has an id for each whole piece of `HASH_TOKENS` tokens of the prompt, where the trace knows them.

    Equal ids mean equal prompts up to and including that piece.
    """

    arrival_s: float
    prompt_tokens: int
    output_tokens: int
    hashes: tuple[int, ...] = ()


class _MooncakeLine(msgspec.Struct):
    """Milliseconds since the trace's start, lengths in tokens; the last id may stand for a piece that isn't whole."""

    timestamp: int
    input_length: int
    output_length: int
    hash_ids: list[int]


def read_text(source: Traversable) -> str:
    """A file's text, unpacked when its content says that it is gzip's; TraceError names what hinders."""
    try:
        with source.open("rb") as file:
            data = file.read(MAX_TRACE_BYTES + 1)
        if data.startswith(b"\x1f\x8b"):
            with gzip.GzipFile(fileobj=io.BytesIO(data)) as packed:
                data = packed.read(MAX_TRACE_BYTES + 1)
        if len(data) > MAX_TRACE_BYTES:
            raise TraceError(f"{source}: more than {MAX_TRACE_BYTES >> 20} MiB; cut it to the part to be replayed")
        return data.decode("utf-8-sig")
    except (OSError, EOFError, zlib.error, UnicodeDecodeError) as error:
        raise TraceError(f"can't read {source}: {error}") from error


def parse_trace(text: str, source: str) -> list[TraceRequest]:
    """The requests of a file in any of the formats, which its content tells apart; in order of arrival, from time 0 on.

    TraceError names the line that is wrong.
    """
    rows = _mooncake_rows(text, source) if text.lstrip().startswith("{") else _csv_rows(text, source)
    trace: list[TraceRequest] = []
    for where, request in rows:
        # Written so that not-a-number fails too.
        if not (0 <= request.arrival_s < math.inf and request.prompt_tokens >= 1 and request.output_tokens >= 1):
            raise TraceError(f"{where}: expected an arrival of at least 0 and lengths of at least 1")
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
        raise TraceError(f"{where}: TIMESTAMP: some have a time zone and some none") from error


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
    # What each id follows: an id says how the whole prompt went so far, so that it can follow but one.
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
                f"{where}: hash_ids: expected one for each {HASH_TOKENS} tokens of the prompt, {pieces},"
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
            raise TraceError(f"{where}: hash_ids: {hash_id} follows other tokens than it does above")
        before = hash_id
