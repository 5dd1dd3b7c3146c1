"""The command that attacks the picker, for a moment."""

import json
from pathlib import Path

from click.testing import CliRunner

from lab.attack.__main__ import main


def test_a_neighbour_is_served_while_the_picker_is_attacked(tmp_path: Path) -> None:
    file = tmp_path / "attack.json"
    arguments = ["--only", "rapid reset", "--seconds", "0.5", "--front", "own", "--json", str(file)]
    ended = CliRunner().invoke(main, arguments, catch_exceptions=False)
    assert "rapid reset" in ended.stdout
    figures = json.loads(file.read_text())["figures"]
    assert figures["neighbour_lost"] == 0
    assert {"neighbour_p99_ms", "neighbour_p99_added_ms_rapid_reset", "rss_peak_mib"} <= figures.keys()


def test_an_attack_that_nobody_knows_is_refused() -> None:
    ended = CliRunner().invoke(main, ["--only", "no such attack"])
    assert (ended.exit_code, "no such attack: expected some of rapid reset," in ended.output) == (2, True)
