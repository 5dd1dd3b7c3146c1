"""The clock may be moved by a day, so no decision reads it: times and deadlines are of the monotonic clock."""

import ast
from collections import Counter
from collections.abc import Iterator
from pathlib import Path

ROOT = Path(__file__).parents[1]
PACKAGES = ("epp", "trainer", "predictor", "serving", "model_store")
WALL_CLOCKS = {"time.time", "time.time_ns", "datetime.now", "datetime.utcnow", "datetime.today", "date.today"}
# These times are only shown or stored. No code compares them with other times.
SHOWN = {
    "epp/extproc/tls.py": "the validity of a certificate that the picker makes",
    "epp/kubernetes/leader.py": "the times in the Lease; whether it has run out is measured here",
    "epp/live/view.py": "the times of steps and events on the live page",
    "epp/model_series.py": "the start of a counter, in Prometheus' text",
    "epp/request/decisions.py": "the time of a decision in /debug/decisions",
    "epp/request/recent_counts.py": "the start of each step on the live page",
    "epp/request/tracing.py": "the start of a span",
    "model_store/manifest.py": "the age of a generation, in metrics and answers",
    "model_store/publication.py": "the time of a publication",
    "predictor/engine.py": "the time of a load",
    "predictor/sidecar.py": "the time of a prediction",
    "predictor/statistics.py": "the time of the last inference, in Triton's statistics",
    "trainer/app.py": "the time of a flush",
    "trainer/fitter.py": "the time of a fit, in the manifest",
    "trainer/models_api.py": "times in answers and archives",
    "trainer/training_pass.py": "the time of a pass, in /data/status",
}


def wall_clocks(tree: ast.AST) -> Iterator[str]:
    for node in ast.walk(tree):
        if isinstance(node, ast.Attribute) and isinstance(node.value, ast.Name):
            name = f"{node.value.id}.{node.attr}"
            if name in WALL_CLOCKS:
                yield name
        elif isinstance(node, ast.ImportFrom) and node.module == "time":
            yield from (f"time.{alias.name}" for alias in node.names if f"time.{alias.name}" in WALL_CLOCKS)


def test_only_what_is_shown_reads_the_clock_that_an_operator_may_move() -> None:
    found = Counter(
        str(file.relative_to(ROOT))
        for package in PACKAGES
        for file in (ROOT / package).rglob("*.py")
        for _ in wall_clocks(ast.parse(file.read_text()))
    )
    assert set(found) == set(SHOWN)
