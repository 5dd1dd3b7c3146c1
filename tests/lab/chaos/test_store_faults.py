"""The faults of stores: a folder that is replaced, and an S3 server that misbehaves."""

import asyncio
import subprocess
import sys
from collections.abc import AsyncIterator
from pathlib import Path

import pytest
import pytest_asyncio

from headroom.processes.ports import free_port
from lab.chaos.bucket import LOCATION, WAYS, BucketServer
from lab.chaos.store_faults import STORE_FAULTS
from model_store import ModelStore, StoreError, StoreUnavailableError, open_store
from tests.live import PATIENCE_S
from tests.model_store.drafts import draft, in_force

# In a process with mounts of its own, because the tests' process has threads.
_MOUNTING = """
import sys
from pathlib import Path
from lab.chaos.store_faults import VOLUME_FAULTS, isolate_mounts, volume
from model_store import StoreError, open_store
from tests.model_store.drafts import draft

reason = isolate_mounts()
if reason:
    sys.exit(reason)
folder = Path(sys.argv[1])
with volume(folder):
    store = open_store(str(folder))
    store.publish([draft()])
    for fault in VOLUME_FAULTS.values():
        end = fault(folder)
        try:
            store.publish([draft(onnx=bytes(1 << 20))])
        except StoreError as error:
            print(str(error).rpartition(": ")[2])
        end()
        store.publish([draft()])
"""


@pytest.mark.parametrize(
    ("fault", "is_later"), [("replaced by an older backup", False), ("replaced by a later one", True)]
)
def test_a_replaced_store_has_another_history(tmp_path: Path, fault: str, is_later: bool) -> None:
    store = open_store(str(tmp_path))
    for content in (b"1", b"2", b"3"):
        store.publish([draft(onnx=content)])
    STORE_FAULTS[fault](tmp_path)
    found = in_force(store)
    assert (found.generation > 3) == is_later
    assert store.generations() == [found.generation]
    assert store.read(found, "ttft").onnx == (b"3" if is_later else b"1")


def test_a_volume_is_read_only_or_full_until_the_fault_ends(tmp_path: Path) -> None:
    command = [sys.executable, "-c", _MOUNTING, str(tmp_path / "store")]
    result = subprocess.run(command, capture_output=True, text=True, timeout=PATIENCE_S)
    if "mount" in result.stderr and "Traceback" not in result.stderr:
        pytest.skip(result.stderr.strip())
    assert result.stdout.splitlines() == ["Read-only file system", "No space left on device"], result.stderr


@pytest_asyncio.fixture
async def server(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> AsyncIterator[BucketServer]:
    server = BucketServer(free_port())
    for name, value in server.environment.items():
        monkeypatch.setenv(name, value)
    for name in ("AWS_CONFIG_FILE", "AWS_SHARED_CREDENTIALS_FILE"):
        monkeypatch.setenv(name, str(tmp_path / "absent"))
    await server.start()
    yield server
    await server.stop()


async def test_a_bucket_misbehaves_until_it_behaves_again(server: BucketServer) -> None:
    def publish() -> ModelStore:
        store = open_store(LOCATION)
        for content in (b"1", b"2"):
            store.publish([draft(onnx=content)])
        return store

    store = await asyncio.to_thread(publish)
    assert (await asyncio.to_thread(in_force, store)).generation == 2
    for way in ("refuses with 403", "away"):
        assert way in WAYS
        await server.misbehave(way)
        with pytest.raises(StoreUnavailableError):
            await asyncio.to_thread(store.current)
        await server.behave()
    await server.misbehave("stale pointer")
    assert (await asyncio.to_thread(in_force, store)).generation == 1
    with pytest.raises(StoreError, match="each of 5 attempts"):
        await asyncio.to_thread(store.publish, [draft()])
    await server.behave()
    # The attempts that failed have reserved numbers.
    assert (await asyncio.to_thread(store.publish, [draft()])).generation > 2
