"""The reference of all metrics, docs/reference-metrics.md, from the metrics pages of running servers."""

import re
from collections.abc import Iterator, Mapping
from typing import NamedTuple

from lab.markdown import table

_TYPE = re.compile(r"^# TYPE (\S+) (\S+)$", re.MULTILINE)
_HELP = re.compile(r"^# HELP (\S+) (.*)$", re.MULTILINE)
# Metrics that the Prometheus client makes for every Python process.
_OF_PYTHON = ("process_", "python_")
_HEAD = """# All metrics

With this page you can look up every metric that a server has, and what it counts.

`/metrics` of each server shows them with their labels, in Prometheus' text format. A histogram `x` has the series
`x_sum`, `x_count` and `x_bucket`. Metrics of the Python process (`process_`, `python_`) are left out. The pages of
[the picker](epp.md#the-metrics-port), [the trainer](trainer.md#metrics) and [the predictor](predictor.md#metrics) say
which metrics to watch. [operate.md](operate.md#alerts) has the alerts.
"""


class Family(NamedTuple):
    """A metric with all its series. `name` is that of a query, so a counter's ends with _total."""

    name: str
    kind: str
    meaning: str


def families(page: str) -> Iterator[Family]:
    """Yield the metrics of a page in Prometheus' text format, or of several, in order of their names."""
    meanings = dict(_HELP.findall(page))
    for name, kind in sorted(set(_TYPE.findall(page))):
        # The time at which a counter began, which the client adds.
        if not name.startswith(_OF_PYTHON) and not name.endswith("_created"):
            yield Family(name, kind, meanings[name].replace("|", "\\|"))


def reference(pages: Mapping[str, str]) -> str:
    """Return the reference, from metrics pages by the server's name."""
    sections = [_HEAD.rstrip()]
    for server, page in pages.items():
        rows = [(f"`{one.name}`", one.kind, one.meaning) for one in families(page)]
        sections += [f"## {server}", table(("metric", "type", "meaning"), rows, is_text=True)]
    return "\n\n".join(sections) + "\n"
