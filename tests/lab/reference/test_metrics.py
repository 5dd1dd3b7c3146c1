"""docs/reference-metrics.md has every metric that the servers really have.

With HEADROOM_WRITE_REFERENCE=1 in the environment, the page is written instead of compared.
"""

import os
import re
from pathlib import Path

import pytest

from lab.reference.metrics import families, reference
from tests.metrics_pages import metrics_pages

ROOT = Path(__file__).parents[3]
PAGE = ROOT / "docs" / "reference-metrics.md"


@pytest.mark.slow
@pytest.mark.xdist_group("metrics_pages")
def test_the_reference_has_every_metric_of_every_server(tmp_path: Path) -> None:
    told = reference(metrics_pages(tmp_path))
    if os.environ.get("HEADROOM_WRITE_REFERENCE"):
        PAGE.write_text(told)
    assert PAGE.read_text() == told


def test_no_metric_in_the_code_is_missing() -> None:
    """Other flags may switch on metrics that the servers of the test above don't have."""
    code = (file.read_text() for folder in ("epp", "trainer", "predictor") for file in (ROOT / folder).rglob("*.py"))
    named = {name for text in code for name in re.findall(r'"(headroom_(?:epp|trainer|predictor)_[a-z_]+)"', text)}
    told = re.findall(r"^\| `(\w+)` \|", PAGE.read_text(), re.MULTILINE)
    assert len(named) > 40
    # Some names are put together from a beginning and an end.
    assert {name for name in named if not any(one.startswith(name) for one in told)} == set()


def test_a_metric_has_a_name_a_type_and_a_meaning() -> None:
    page = "# HELP a_total Things | counted\n# TYPE a_total counter\n# HELP a_created b\n# TYPE a_created gauge\n"
    assert list(families(page)) == [("a_total", "counter", "Things \\| counted")]
