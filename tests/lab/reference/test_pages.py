"""The references in the documentation say what commands and chart have now."""

import os
import re
import subprocess
import sys

import pytest

from lab.reference.__main__ import DOCS, PAGES


@pytest.mark.parametrize("name", PAGES)
def test_a_reference_is_up_to_date(name: str) -> None:
    assert (DOCS / name).read_text() == PAGES[name](), "python -m lab.reference writes it"


def test_values_without_a_default_are_listed() -> None:
    page = PAGES["reference-values.md"]()
    _, _, more = page.partition("\n## Values without a default\n")
    assert "- `inferencePool.create`\n" in more
    assert "replicas" not in more


def test_commands_within_commands_have_their_flags() -> None:
    page = PAGES["reference-commands.md"]()
    assert "\n## headroom up\n" in page
    assert "\n## headroom store keygen\n" in page
    assert "| `--server-ca-file` |" in page


def test_the_variables_of_a_prefix_are_those_that_the_command_reads() -> None:
    told = re.findall(r"^\| `--port` \| `(\w+)` \|", PAGES["reference-commands.md"](), re.MULTILINE)
    assert "SIMULATOR_PORT" in told
    environment = os.environ | {"SIMULATOR_PORT": "none"}
    command = [sys.executable, "-m", "simulator"]
    ended = subprocess.run(command, env=environment, stderr=subprocess.PIPE, text=True, check=False)
    assert ended.returncode == 2
    assert "'none' is not a valid integer" in ended.stderr


def test_the_load_generator_has_its_flags() -> None:
    assert "| `--shared-prefix-share` | `SIMULATOR_LOAD_SHARED_PREFIX_SHARE` |" in PAGES["reference-commands.md"]()
