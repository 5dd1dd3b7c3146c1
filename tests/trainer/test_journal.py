import errno
import json
import os
import struct
import subprocess
import sys
import urllib.request
import zlib
from pathlib import Path

import msgspec
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from model_store import ROW_FEATURES
from tests.live import PATIENCE_S, call
from tests.trainer.test_trainer_app import entries, running_trainer, sample_count
from trainer.exceptions import JournalError
from trainer.ingestion import Ingestion
from trainer.journal import Journal
from trainer.window import Window
from trainer.wire import Samples


def batch(count: int, seed: int = 0) -> Samples:
    rng = np.random.default_rng(seed)
    latencies = rng.random((2, count), dtype=np.float32)
    return Samples(rng.random((count, len(ROW_FEATURES)), dtype=np.float32), *latencies)


def replayed(folder: Path) -> list[bytes]:
    return [samples.features.tobytes() for _, samples in Journal(folder).replay()]


def test_appended_batches_are_replayed_in_order(tmp_path: Path) -> None:
    journal = Journal(tmp_path)
    for seed in range(5):
        journal.append("", batch(10, seed))
    assert replayed(tmp_path) == [batch(10, seed).features.tobytes() for seed in range(5)]


@settings(max_examples=60)
@given(cut=st.integers(0, 5000), garbage=st.binary(max_size=40))
def test_a_torn_tail_loses_no_record_before_it(cut: int, garbage: bytes) -> None:
    import tempfile

    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        journal = Journal(folder)
        for seed in range(4):
            journal.append("", batch(10, seed))
        journal.close()
        (segment,) = folder.iterdir()
        whole = segment.read_bytes()
        record = (len(whole) - whole.index(b"\n") - 1) // 4
        kept = max(len(whole) - cut, whole.index(b"\n") + 1)
        segment.write_bytes(whole[:kept] + garbage)
        survivors = (kept - whole.index(b"\n") - 1) // record
        assert replayed(folder) == [batch(10, seed).features.tobytes() for seed in range(survivors)]
        # A record written after the replay is found by the next replay.
        again = Journal(folder)
        list(again.replay())
        again.append("", batch(3, 9))
        again.close()
        assert len(replayed(folder)) == survivors + 1


def test_a_volume_that_turns_read_only_refuses_batches_and_hides_none(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    journal = Journal(tmp_path)
    journal.append("", batch(10, 0))

    def refuse(*arguments: object) -> int:
        raise OSError(errno.EROFS, os.strerror(errno.EROFS))

    with monkeypatch.context() as patch:
        patch.setattr("os.write", refuse)
        patch.setattr("os.ftruncate", refuse)
        with pytest.raises(JournalError, match="Read-only file system"):
            journal.append("", batch(10, 1))
    journal.append("", batch(10, 2))
    assert replayed(tmp_path) == [batch(10, seed).features.tobytes() for seed in (0, 2)]


def test_a_record_with_a_flipped_byte_is_not_replayed(tmp_path: Path) -> None:
    journal = Journal(tmp_path)
    journal.append("", batch(10))
    journal.close()
    (segment,) = tmp_path.iterdir()
    data = bytearray(segment.read_bytes())
    data[-20] ^= 1
    segment.write_bytes(data)
    assert replayed(tmp_path) == []


def test_a_snapshot_replaces_all_segments_before_it(tmp_path: Path) -> None:
    journal = Journal(tmp_path, segment_bytes=100)
    journal.append("", batch(10, 1))
    assert journal.is_full
    number = journal.rotate()
    journal.append("", batch(10, 2))
    # The state after a crash between writing the snapshot and removing the segments that it replaces.
    old = next(path for path in tmp_path.iterdir() if path.name.endswith("1.journal"))
    kept = old.read_bytes()
    journal.write_snapshot(number, batch(4, 3))
    old.write_bytes(kept)
    assert replayed(tmp_path) == [batch(4, 3).features.tobytes(), batch(10, 2).features.tobytes()]


def test_rows_of_an_older_journal_lack_new_features(tmp_path: Path) -> None:
    rows = np.arange(2 * len(ROW_FEATURES), dtype="<f4").reshape(2, -1)
    names = [feature.name for feature in ROW_FEATURES if feature.name != "ms_since_token"]
    header = json.dumps({"columns": [*names, "actual_ttft_ms", "actual_tpot_ms"], "snapshot": False}).encode()
    payload = bytes(16) + np.column_stack((rows[:, : len(names)], rows[:, :2])).tobytes()
    record = struct.pack("<II", len(payload), zlib.crc32(payload)) + payload
    (tmp_path / "samples-00000001.journal").write_bytes(header + b"\n" + record)
    ((_, samples),) = Journal(tmp_path).replay()
    np.testing.assert_array_equal(samples.features[:, : len(names)], rows[:, : len(names)])
    assert np.isnan(samples.features[:, len(names) :]).all()
    np.testing.assert_array_equal(samples.tpot_ms, rows[:, 1])


def test_columns_of_another_version_are_found_by_name(tmp_path: Path) -> None:
    journal = Journal(tmp_path)
    journal.append("", batch(2))
    journal.close()
    (segment,) = tmp_path.iterdir()
    segment.write_bytes(segment.read_bytes().replace(b'"pod_type"', b'"was_role"'))
    ((_, samples),) = Journal(tmp_path).replay()
    names = [feature.name for feature in ROW_FEATURES]
    assert np.isnan(samples.features[:, names.index("pod_type")]).all()
    np.testing.assert_array_equal(samples.features[:, 1], batch(2).features[:, 1])


async def test_the_window_is_the_same_after_a_restart(tmp_path: Path) -> None:
    before, after = (Window(50, 0.2, 100) for _ in range(2))
    ingestion = Ingestion(before, Journal(tmp_path))
    ingestion.restore()
    for seed in range(5):
        await ingestion.accept("", batch(100, seed))
    assert Ingestion(after, Journal(tmp_path)).restore() == 500
    np.testing.assert_array_equal((await after.samples()).features, (await before.samples()).features)


async def test_a_repeated_batch_is_counted_once_even_after_a_restart(tmp_path: Path) -> None:
    first = Ingestion(Window(100, 0.2, 100), Journal(tmp_path))
    first.restore()
    assert await first.accept("key", batch(10))
    assert not await first.accept("key", batch(10))
    again = Ingestion(Window(100, 0.2, 100), Journal(tmp_path))
    assert again.restore() == 10
    assert not await again.accept("key", batch(10))
    assert await again.accept("other", batch(10))


def test_a_journal_that_can_not_be_written_refuses_and_recovers(tmp_path: Path) -> None:
    folder = tmp_path / "journal"
    folder.write_text("a file is in the way")
    journal = Journal(folder)
    with pytest.raises(JournalError, match="can't write"):
        journal.append("", batch(1))
    folder.unlink()
    journal.append("", batch(1))
    assert len(replayed(folder)) == 1


def test_a_full_disk_is_reported_and_no_partial_record_stays(tmp_path: Path) -> None:
    code = (
        "import resource, sys; resource.setrlimit(resource.RLIMIT_FSIZE, (20000, 20000))\n"
        "import signal; signal.signal(signal.SIGXFSZ, signal.SIG_IGN)\n"
        "from pathlib import Path; from trainer.journal import Journal; from trainer.exceptions import JournalError\n"
        "from tests.trainer.test_journal import batch\n"
        "journal, written = Journal(Path(sys.argv[1])), 0\n"
        "try:\n"
        "    while True: journal.append('', batch(20, written)); written += 1\n"
        "except JournalError: print(written)\n"
    )
    # With bytecode, it would leave cut files behind for modules that nobody has imported yet.
    command = [sys.executable, "-B", "-c", code, str(tmp_path)]
    result = subprocess.run(command, capture_output=True, text=True, timeout=PATIENCE_S, check=False)
    assert result.returncode == 0, result.stderr
    assert len(replayed(tmp_path)) == int(result.stdout) > 5


def test_http_counts_a_repeated_batch_once_and_restores_after_a_restart(tmp_path: Path) -> None:
    body = msgspec.json.encode({"entries": entries(200)})
    for _ in range(2):
        with running_trainer(tmp_path / "store", journal=str(tmp_path / "journal")) as url:
            request = urllib.request.Request(  # noqa: S310
                f"{url}/add_training_data_bulk", body, {"idempotency-key": "batch-1"}
            )
            with urllib.request.urlopen(request, timeout=PATIENCE_S) as response:  # noqa: S310
                assert response.status == 202
            assert sample_count(url) == 200


def test_flushed_samples_do_not_come_back_after_a_restart(tmp_path: Path) -> None:
    with running_trainer(tmp_path / "store", journal=str(tmp_path / "journal")) as url:
        call(f"{url}/add_training_data_bulk", {"entries": entries(200)})
        assert call(f"{url}/flush", b"")[0] == 200
        call(f"{url}/add_training_data_bulk", {"entries": entries(30, seed=1)})
    with running_trainer(tmp_path / "store", journal=str(tmp_path / "journal")) as url:
        assert sample_count(url) == 30
