import asyncio
import logging
import os
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from pathlib import Path

import pytest

from epp.exceptions import ConfigError
from epp.reload import ReloadedFile
from epp.scheduling.configuration.config import load_scheduler
from epp.scheduling.scheduler import Scheduler
from tests.epp.scheduling.configuration.test_config import HEAD, QUEUE
from tests.live import PATIENCE_S

OTHER = HEAD + "plugins:\n- type: load-aware-scorer\n"


def scheduler_file(path: Path) -> ReloadedFile[Scheduler]:
    return ReloadedFile(path, lambda text: load_scheduler(text, {}))


def scorer(scheduler: Scheduler) -> str:
    return scheduler.profiles["default"].scorers[0].name


@asynccontextmanager
async def watched(file: ReloadedFile[Scheduler], applied: list[Scheduler]) -> AsyncIterator[None]:
    task = asyncio.create_task(file.watch(applied.append, interval_s=0.005))
    try:
        yield
    finally:
        task.cancel()
        await asyncio.gather(task, return_exceptions=True)


async def until(condition: Callable[[], bool]) -> None:
    async with asyncio.timeout(PATIENCE_S):
        while not condition():
            await asyncio.sleep(0.005)


async def test_a_changed_file_is_applied_and_a_wrong_one_is_not(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    path, applied = tmp_path / "config.yaml", list[Scheduler]()
    path.write_text(QUEUE)
    file = scheduler_file(path)
    assert scorer(file.load()) == "queue-scorer"
    async with watched(file, applied):
        path.write_text(OTHER)
        await until(lambda: file.reloads == 1)
        assert scorer(applied[-1]) == "load-aware-scorer"
        path.write_text(OTHER + "- type: nonsense\n")
        await until(lambda: file.failures == 1)
        assert "line 5: $.plugins[1].type: unknown plugin type" in caplog.text
        path.write_bytes(b"\xff")
        await until(lambda: file.failures == 2)
        path.write_text(QUEUE)
        await until(lambda: file.reloads == 2)
    assert [scorer(scheduler) for scheduler in applied] == ["load-aware-scorer", "queue-scorer"]


async def test_a_config_map_s_symbolic_link_is_followed(tmp_path: Path) -> None:
    """The kubelet writes a new folder, and renames a link to it over the old one."""
    for name, text in (("v1", QUEUE), ("v2", QUEUE.replace("queue", "token-load"))):
        (tmp_path / name).mkdir()
        (tmp_path / name / "config.yaml").write_text(text)
        os.utime(tmp_path / name / "config.yaml", (1, 1))
    (tmp_path / "..data").symlink_to("v1")
    path, applied = tmp_path / "config.yaml", list[Scheduler]()
    path.symlink_to("..data/config.yaml")
    file = scheduler_file(path)
    file.load()
    async with watched(file, applied):
        (tmp_path / "..tmp").symlink_to("v2")
        os.replace(tmp_path / "..tmp", tmp_path / "..data")
        await until(lambda: file.reloads == 1)
    assert scorer(applied[0]) == "token-load-scorer"


async def test_a_file_that_is_missing_for_a_moment_is_read_later(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    path, applied = tmp_path / "config.yaml", list[Scheduler]()
    path.write_text(QUEUE)
    file = scheduler_file(path)
    file.load()
    async with watched(file, applied):
        path.unlink()
        await until(lambda: "the current configuration stays" in caplog.text)
        assert (file.reloads, file.failures) == (0, 0)
        path.write_text(OTHER)
        await until(lambda: file.reloads == 1)
    assert [record.levelno for record in caplog.records if "stays" in record.message] == [logging.WARNING]


async def test_a_configuration_that_can_t_be_applied_is_counted(tmp_path: Path) -> None:
    path = tmp_path / "config.yaml"
    path.write_text(QUEUE)
    file = scheduler_file(path)
    file.load()

    def refuse(scheduler: Scheduler) -> None:
        raise ValueError("the prefix index can't be resized")

    task = asyncio.create_task(file.watch(refuse, interval_s=0.005))
    path.write_text(OTHER)
    await until(lambda: file.failures == 1)
    task.cancel()
    await asyncio.gather(task, return_exceptions=True)


def test_the_first_load_raises_the_error(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"can't read .*none: No such file"):
        scheduler_file(tmp_path / "none").load()
    (tmp_path / "latin").write_bytes(b"a: \xe9")
    with pytest.raises(ConfigError, match="is not UTF-8"):
        scheduler_file(tmp_path / "latin").load()
