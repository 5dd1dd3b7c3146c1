"""The command that attacks the picker, for a moment."""

import json
import re
from pathlib import Path

from click.testing import CliRunner

from lab.attack.__main__ import BLOCK, main

MARKS = ("<!-- begin: written by scripts/attack --out -->", "<!-- end -->")


def test_a_neighbour_is_served_while_the_picker_is_attacked(tmp_path: Path) -> None:
    file, page = tmp_path / "attack.json", tmp_path / "page.md"
    page.write_text("Before.\n<!-- begin: written by scripts/attack --out -->\nold\n<!-- end -->\nAfter.\n")
    arguments = ["--only", "rapid reset,invented models", "--seconds", "0.5", "--front", "own"]
    arguments += ["--json", str(file), "--out", str(page)]
    ended = CliRunner().invoke(main, arguments, catch_exceptions=False)
    assert "rapid reset" in ended.stdout
    figures = json.loads(file.read_text())["figures"]
    assert figures["neighbour_lost"] == 0
    assert {"neighbour_p99_ms", "neighbour_p99_added_ms_rapid_reset", "rss_peak_mib"} <= figures.keys()
    before, mark, head, _, none, attack, models, said, end, after = filter(None, page.read_text().splitlines())
    assert (before, after, mark, end) == ("Before.", "After.", *MARKS)
    assert head == "| attack | own: p99 ms | own: answered | own: MiB |"
    assert none.startswith("| none | ")
    assert re.fullmatch(r"\| rapid reset \| \d+ \| 10/10 \| \d+ \|", attack)
    assert re.fullmatch(r"\| invented models \| \d+ \| 10/10 \| \d+ \|", models)
    assert said == "Each attack lasted 0.5 s."


def test_a_page_without_a_place_for_the_table_is_refused(tmp_path: Path) -> None:
    page = tmp_path / "page.md"
    page.write_text("No marks.\n")
    ended = CliRunner().invoke(main, ["--out", str(page)])
    assert (ended.exit_code, "has no place for the table" in ended.output) == (2, True)


def test_the_page_about_security_has_a_place_for_the_table() -> None:
    assert BLOCK.has_place(Path(__file__).parents[3] / "docs" / "security.md")


def test_an_attack_that_nobody_knows_is_refused() -> None:
    ended = CliRunner().invoke(main, ["--only", "no such attack"])
    assert (ended.exit_code, "no such attack: expected some of rapid reset," in ended.output) == (2, True)
