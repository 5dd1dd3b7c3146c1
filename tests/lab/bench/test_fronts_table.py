import json
from pathlib import Path

import click
import pytest

from lab.bench.epp.fronts_table import BLOCK, text_of

_DOCS = Path(__file__).parents[3] / "docs"
_SETTINGS = {"rounds": 5, "seconds": 3.0, "endpoints": 100, "load_average": {"before": 0.25, "after": 1.5}}
_FIGURES = {
    "front_own_cpu_us_per_request_default": 250.0,
    "front_grpcio_cpu_us_per_request_default": 1000.0,
    "front_cpu_ratio_default": 0.25,
    "front_cpu_ratio_default_min": 0.2,
    "front_cpu_ratio_default_max": 0.3,
    "front_pick_c32_p50_ratio": 0.9,
}


def test_a_row_has_both_fronts_the_ratio_of_the_rounds_and_which_way_is_better() -> None:
    block = text_of(_FIGURES, _SETTINGS)
    assert "(`front_cpu_ratio_default`) | 250 | 1,000 | 0.25 (0.20 to 0.30) | lower |" in block
    assert "front_rss_ratio" not in block
    assert "load average was 0.2 before and 1.5 after" in block.replace("\n", " ")


@pytest.mark.parametrize(
    ("cpu", "pick", "verdict"),
    [
        (0.75, 1.2, "It saves 25% and -20%: it stays the default."),
        (0.76, 0.75, "It saves 24% and 25%: it stays the default."),
        (0.76, 0.76, "It saves 24% and 24%: grpcio has to become the default."),
    ],
)
def test_the_own_front_has_to_save_a_quarter_of_either(cpu: float, pick: float, verdict: str) -> None:
    figures = _FIGURES | {"front_cpu_ratio_default": cpu, "front_pick_c32_p50_ratio": pick}
    assert verdict in text_of(figures, _SETTINGS)


def test_a_page_is_renewed_between_its_marks(tmp_path: Path) -> None:
    page = tmp_path / "page.md"
    older = text_of(_FIGURES, _SETTINGS)
    BLOCK.write(page, older)
    page.write_text(f"before\n\n{page.read_text()}\nafter\n")
    newer = text_of(_FIGURES | {"front_cpu_ratio_default": 0.5}, _SETTINGS)
    BLOCK.write(page, newer)
    assert [newer in page.read_text(), older in page.read_text()] == [True, False]
    assert (page.read_text()[:7], page.read_text()[-7:]) == ("before\n", "\nafter\n")


def test_a_page_without_marks_has_no_place(tmp_path: Path) -> None:
    page = tmp_path / "page.md"
    assert BLOCK.has_place(page)
    page.write_text("# A page\n")
    assert not BLOCK.has_place(page)
    with pytest.raises(click.UsageError, match="has no place for the table"):
        BLOCK.require_place(page)
    BLOCK.require_place(None)


def test_the_documentation_shows_the_published_figures() -> None:
    run = json.loads((_DOCS / "fronts-bench.json").read_text())
    block = text_of(run["figures"], run["settings"])
    assert [page.name for page in _DOCS.glob("**/*.md") if block in page.read_text()]
