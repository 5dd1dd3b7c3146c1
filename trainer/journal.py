"""The sample journal: batches are written to it before they are acknowledged, so a killed trainer loses none.

A journal is a folder of segments. A segment begins with a line of JSON that names its columns and tells whether it is
a snapshot. A snapshot replaces all segments before it. Records follow:

    u32 length of the payload | u32 CRC-32 of the payload | payload: 16 bytes of batch key, then float32 rows

When `append` returns, the kernel has the record, so the record survives the death of the process. It survives the death
of the machine only after the next sync. The next replay cuts off a record that was only partly written.
"""

import errno
import hashlib
import json
import logging
import os
import re
import secrets
import struct
import zlib
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np

from model_store import ROW_FEATURES, ROW_NAMES
from trainer.exceptions import JournalError
from trainer.wire import Samples

logger = logging.getLogger("headroom.trainer.journal")

_COLUMNS = (*ROW_NAMES, "actual_ttft_ms", "actual_tpot_ms")
_SEGMENT = re.compile(r"samples-(\d{8})\.journal")
_HEAD = struct.Struct("<II")
_KEY_BYTES = 16
_MAX_HEADER_BYTES = 1 << 16


class Journal:
    """A journal with one writer. Call `replay` before the first `append`."""

    def __init__(self, folder: Path, segment_bytes: int = 64 << 20) -> None:
        self._folder = folder
        self._segment_bytes = segment_bytes
        self._number = 1
        self._descriptor = -1
        self._size = 0

    @property
    def is_full(self) -> bool:
        """True when the segment is large enough for a snapshot to be worth its cost."""
        return self._size > self._segment_bytes

    def replay(self) -> Iterator[tuple[bytes, Samples]]:
        """Yield the key digest and samples of each whole record, oldest first; raise JournalError on a read error."""
        try:
            self._folder.mkdir(parents=True, exist_ok=True)
            for path in self._folder.glob(".partial-*"):
                path.unlink()
            segments = self._segments()
            self._number = segments[-1][0] if segments else 1
            snapshots = [number for number, path in segments if _read_header(path).get("snapshot")]
            for number, path in segments:
                if number >= max(snapshots, default=0):
                    yield from _read_segment(path)
        except OSError as error:
            raise JournalError(f"can't read the sample journal {self._folder}: {error.strerror}") from error

    def append(self, key: str, samples: Samples) -> None:
        """Write a batch; if it can't be written whole, write nothing and raise JournalError."""
        record = _encode_record(key_digest(key), samples)
        try:
            if self._descriptor < 0:
                self._open()
            if os.write(self._descriptor, record) < len(record):
                raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
        except OSError as error:
            self._cut_off_partial_record()
            raise JournalError(f"can't write the sample journal {self._folder}: {error.strerror}") from error
        self._size += len(record)

    def duplicate(self) -> int | None:
        """Return a duplicate descriptor, which `sync` can use in another thread; None if nothing was written."""
        return os.dup(self._descriptor) if self._descriptor >= 0 else None

    def rotate(self) -> int:
        """End the segment; return the number for a snapshot of all segments so far."""
        self.close()
        self._number += 2
        return self._number - 1

    def write_snapshot(self, number: int, samples: Samples) -> None:
        """Replace all segments before `number` by a snapshot of `samples`. Blocking; leaves the open segment alone."""
        partial = self._folder / f".partial-{secrets.token_hex(4)}"
        with partial.open("wb") as file:
            file.write(_header(snapshot=True) + _encode_record(bytes(_KEY_BYTES), samples))
            file.flush()
            os.fsync(file.fileno())
        os.replace(partial, self._path(number))
        for older, path in self._segments():
            if older < number:
                path.unlink()

    def close(self) -> None:
        if self._descriptor >= 0:
            os.close(self._descriptor)
            self._descriptor, self._size = -1, 0

    def _open(self) -> None:
        self._folder.mkdir(parents=True, exist_ok=True)
        self._descriptor = os.open(self._path(self._number), os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o600)
        self._size = os.fstat(self._descriptor).st_size
        if not self._size:
            self._size = os.write(self._descriptor, _header(snapshot=False))

    def _cut_off_partial_record(self) -> None:
        """Truncate the segment after its last whole record: a partial record would hide all that follow.

        Where even that fails, later records go to a new segment.
        """
        if self._descriptor >= 0:
            try:
                os.ftruncate(self._descriptor, self._size)
            except OSError:
                self.rotate()

    def _path(self, number: int) -> Path:
        return self._folder / f"samples-{number:08d}.journal"

    def _segments(self) -> list[tuple[int, Path]]:
        found = ((_SEGMENT.fullmatch(path.name), path) for path in self._folder.iterdir())
        return sorted((int(match[1]), path) for match, path in found if match)


def sync(descriptor: int) -> None:
    """Flush written bytes to the disk, and close the descriptor. Blocking."""
    try:
        os.fdatasync(descriptor)
    finally:
        os.close(descriptor)


def key_digest(key: str) -> bytes:
    """Return the 16-byte digest of a batch key; all zeros for an empty key."""
    return hashlib.blake2b(key.encode(), digest_size=_KEY_BYTES).digest() if key else bytes(_KEY_BYTES)


def _header(snapshot: bool) -> bytes:
    return json.dumps({"columns": _COLUMNS, "snapshot": snapshot}).encode() + b"\n"


def _read_header(path: Path) -> dict[str, Any]:
    """Return a segment's header, or an empty one if it is unreadable."""
    with path.open("rb") as file:
        try:
            header = json.loads(file.readline(_MAX_HEADER_BYTES))
        except ValueError:
            return {}
    return header if isinstance(header, dict) and isinstance(header.get("columns"), list) else {}


def _encode_record(digest: bytes, samples: Samples) -> bytes:
    rows = np.column_stack((samples.features, samples.ttft_ms, samples.tpot_ms)).astype("<f4")
    payload = digest + rows.tobytes()
    return _HEAD.pack(len(payload), zlib.crc32(payload)) + payload


def _read_segment(path: Path) -> Iterator[tuple[bytes, Samples]]:
    header = _read_header(path)
    data = path.read_bytes()
    if not header:
        logger.error("%s has no readable header: %d bytes of samples are lost", path, len(data))
        return
    end = data.find(b"\n") + 1
    while end + _HEAD.size <= len(data):
        length, checksum = _HEAD.unpack_from(data, end)
        payload = data[end + _HEAD.size : end + _HEAD.size + length]
        if len(payload) < length or zlib.crc32(payload) != checksum:
            break
        end += _HEAD.size + length
        yield payload[:_KEY_BYTES], _decode_rows(payload[_KEY_BYTES:], header["columns"])
    if end < len(data):
        logger.warning("%s: cut off %d bytes after the last whole record", path, len(data) - end)
        os.truncate(path, end)


def _decode_rows(rows: bytes, columns: list[str]) -> Samples:
    """Decode rows that any version wrote: unknown columns are dropped, absent ones get the feature's fill value."""
    table = np.frombuffer(rows, dtype="<f4").reshape(-1, len(columns))
    known = {name: table[:, index] for index, name in enumerate(columns)}
    absent = {feature.name: feature.fill_value for feature in ROW_FEATURES}
    full = np.column_stack([known.get(name, np.full(len(table), absent.get(name, 0.0))) for name in _COLUMNS])
    full = full.astype(np.float32)
    return Samples(full[:, :-2], full[:, -2], full[:, -1])
