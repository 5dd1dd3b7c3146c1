"""Operators learn when a process has no descriptors left, and when it has some again."""

import logging
import subprocess
import sys

import pytest

from serving.descriptors import watch_descriptors


async def test_the_end_of_descriptors_and_their_return_are_one_line_each(caplog: pytest.LogCaptureFixture) -> None:
    answers = iter([False, False, True, True, True, False, False, True])
    with caplog.at_level(logging.INFO), pytest.raises(RuntimeError):
        # The iterator's end ends the coroutine.
        await watch_descriptors(lambda: next(answers), every_s=0)
    assert [record.levelname for record in caplog.records] == ["WARNING", "INFO", "WARNING"]


def test_a_process_without_descriptors_knows_it() -> None:
    code = (
        "import os, resource\n"
        "from serving.descriptors import is_exhausted\n"
        "before = is_exhausted()\n"
        "soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)\n"
        "resource.setrlimit(resource.RLIMIT_NOFILE, (3, hard))\n"
        "during = is_exhausted()\n"
        "resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))\n"
        "print(before, during, is_exhausted())\n"
    )
    result = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert result.stdout.split() == ["False", "True", "False"]
