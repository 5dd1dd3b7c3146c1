"""The unit of the documentation is one that systemd accepts, with flags that `headroom up` has."""

import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from headroom.up.command import up
from tests.live import PATIENCE_S

VERIFIER = shutil.which("systemd-analyze")
PAGE = Path(__file__).parents[3] / "docs" / "operate.md"


def unit() -> str:
    [text] = re.findall(r"```ini\n(\[Unit\].*?)```", PAGE.read_text(), re.DOTALL)
    return str(text)


def test_its_flags_exist() -> None:
    known = {name for parameter in up.params for name in parameter.opts}
    used = set(re.findall(r"--[a-z-]+", unit()))
    assert {"--endpoints-file", "--objectives", "--state", "--host"} == used
    assert used < known


@pytest.mark.skipif(VERIFIER is None, reason="systemd is not installed")
def test_systemd_accepts_it(tmp_path: Path) -> None:
    file = tmp_path / "headroom.service"
    file.write_text(unit().replace("/opt/headroom/bin/headroom", sys.executable))
    done = subprocess.run(
        [str(VERIFIER), "verify", "--man=no", str(file)],
        capture_output=True,
        text=True,
        timeout=PATIENCE_S,
    )
    own = [line for line in done.stderr.splitlines() if "headroom.service" in line]
    assert (done.returncode, own) == (0, []), done.stderr
