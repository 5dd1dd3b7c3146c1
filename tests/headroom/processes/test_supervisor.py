"""A part that ends starts again, if the supervisor is told so."""

import asyncio
import os
import subprocess
import sys
from pathlib import Path

import psutil
import pytest

from headroom.processes.exceptions import PartError
from headroom.processes.ports import free_port
from headroom.processes.supervisor import Part, Supervisor
from tests.live import PATIENCE_S

ROOT = Path(__file__).parents[3]
SERVE = "import sys; from http.server import *; HTTPServer(('127.0.0.1', int(sys.argv[1])), {}).serve_forever()"
HANDLER = (
    "type('H', (BaseHTTPRequestHandler,), {'do_GET': lambda s: (s.send_response(200), s.end_headers()),"
    " 'log_message': lambda *a: None})"
)


def part(code: str) -> Part:
    port = free_port()
    return Part("part", [sys.executable, "-c", code, str(port)], [port], f"http://127.0.0.1:{port}/", os.environ)


async def test_a_part_that_ends_starts_again(tmp_path: Path) -> None:
    lost: asyncio.Queue[str] = asyncio.Queue()
    supervisor = Supervisor(tmp_path, lost.put_nowait, restart_s=0.01)
    try:
        await supervisor.start([part(SERVE.format(HANDLER))], lambda name: None)
        for _ in range(2):
            before = supervisor.pid("part")
            supervisor.kill("part")
            assert await asyncio.wait_for(lost.get(), PATIENCE_S) == "part"
            async with asyncio.timeout(PATIENCE_S):
                while supervisor.pid("part") == before:
                    await asyncio.sleep(0.01)
    finally:
        await supervisor.stop()


OWNER = """
import asyncio, sys
from pathlib import Path
from headroom.processes.supervisor import Supervisor
from tests.headroom.processes.test_supervisor import HANDLER, SERVE, part

async def main():
    supervisor = Supervisor(Path(sys.argv[1]), lambda name: None)
    await supervisor.start([part(SERVE.format(HANDLER))], lambda name: None)
    print(supervisor.pid("part"), flush=True)
    await asyncio.Event().wait()

asyncio.run(main())
"""


@pytest.mark.skipif(sys.platform != "linux", reason="only Linux ends children with their parent")
def test_a_part_of_others_ends_when_the_supervisor_is_killed(tmp_path: Path) -> None:
    command = [sys.executable, "-c", OWNER, str(tmp_path)]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True, cwd=ROOT) as owner:
        assert owner.stdout
        running = psutil.Process(int(owner.stdout.readline()))
        owner.kill()
    assert psutil.wait_procs([running], timeout=PATIENCE_S)[1] == []


async def test_a_part_that_ends_before_it_is_ready_is_an_error(tmp_path: Path) -> None:
    supervisor = Supervisor(tmp_path, lambda name: None, restart_s=0.01)
    try:
        with pytest.raises(PartError, match=r"part ended with status 1: no such disk \(whole log: "):
            await supervisor.start([part("raise SystemExit('no such disk')")], lambda name: None)
    finally:
        await supervisor.stop()


async def test_a_part_that_ends_at_once_has_longer_and_longer_pauses(tmp_path: Path) -> None:
    supervisor = Supervisor(tmp_path, lambda name: None, restart_s=1.0)
    pauses_s = [supervisor._pause_s("part", lived_s) for lived_s in (60, 1, 1, 1, 1, 1, 1, 60)]
    assert pauses_s == [1, 2, 4, 8, 16, 30, 30, 1]
