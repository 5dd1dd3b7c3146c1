"""The documentation's systemd unit and Compose file are ones that their tools accept, with flags of `headroom up`."""

import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
from compose_spec import PyCompose

from headroom.up.command import up
from tests.live import PATIENCE_S

VERIFIER = shutil.which("systemd-analyze")
PAGE = Path(__file__).parents[3] / "docs" / "operate.md"


KNOWN = {name for parameter in up.params for name in parameter.opts}


def unit() -> str:
    [text] = re.findall(r"```ini\n(\[Unit\].*?)```", PAGE.read_text(), re.DOTALL)
    return str(text)


def compose_file() -> PyCompose:
    """Return the parsed file. Parsing fails for a key that Compose doesn't know."""
    [text] = re.findall(r"```yaml\n(services:.*?)```", PAGE.read_text(), re.DOTALL)
    return PyCompose.from_yaml(text)


def test_the_unit_s_flags_exist() -> None:
    used = set(re.findall(r"--[a-z-]+", unit()))
    assert {"--endpoints-file", "--objectives", "--state", "--host"} == used
    assert used < KNOWN


def test_the_compose_file_s_flags_exist_and_its_folders_are_mounted() -> None:
    service = compose_file().to_dict()["services"]["headroom"]
    command = service["command"]
    assert command[:2] == ["headroom", "up"]
    assert {word for word in command if word.startswith("--")} < KNOWN
    mounted = {mount["target"] if isinstance(mount, dict) else mount.split(":")[1] for mount in service["volumes"]}
    assert mounted == {"/config", "/state"}
    assert all(any(word.startswith(folder) for word in command) for folder in mounted)


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
