"""A report as one page of HTML: the words, and pictures of attainment over time and of predictions."""

import html
import io
from collections.abc import Iterable, Sequence
from datetime import UTC, datetime

import matplotlib as mpl
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import LogLocator, NullFormatter, StrMethodFormatter

from epp.request.outcome_journal import Row
from headroom.report.summary import Interval
from headroom.report.text import minute

# From the palette of Okabe and Ito, which colour-blind people tell apart.
_BLUE, _ORANGE, _GREY = "#0072b2", "#d55e00", "#888888"
# More points make a picture no clearer, and the page larger.
_MOST_POINTS = 2_000
_PAGE = """<!doctype html>
<html lang="en">
<meta charset="utf-8">
<meta name="viewport" content="width=device-width, initial-scale=1">
<title>{title}</title>
<style>
body {{ font: 16px/1.5 system-ui, sans-serif; max-width: 60rem; margin: 2rem auto; padding: 0 1rem; }}
pre {{ white-space: pre-wrap; font: 14px/1.5 ui-monospace, monospace; }}
h1 {{ font-size: 1.4rem; }}
figure {{ margin: 2rem 0; }}
svg {{ max-width: 100%; height: auto; background: #fff; }}
</style>
<h1>{title}</h1>
<pre>{words}</pre>
{figures}
</html>
"""


def page(rows: Sequence[Row], over_time: Sequence[Interval], words: Iterable[str]) -> str:
    """Return the page. It needs nothing else: pictures are part of it."""
    first, last = (minute(rows[index].decided_at) for index in (0, -1))
    pictures = [
        ("Share of requests that met their objectives", _attainment(over_time)),
        ("Predicted medians and what was observed; a met request is blue", _predictions(rows)),
    ]
    figures = "\n".join(
        f"<figure><figcaption>{html.escape(text)}</figcaption>{picture}</figure>"
        for text, picture in pictures
        if picture
    )
    title = f"Requests from {first} to {last}"
    return _PAGE.format(title=html.escape(title), words=html.escape("\n".join(words)), figures=figures)


def _attainment(over_time: Sequence[Interval]) -> str:
    known = [one for one in over_time if one.attainment is not None]
    if not known:
        return ""
    figure = Figure(figsize=(9, 3), layout="constrained")
    axes = figure.subplots()
    times = [datetime.fromtimestamp(one.began_at, UTC).astimezone() for one in known]
    axes.plot(times, [100 * (one.attainment or 0.0) for one in known], "o-", color=_BLUE)  # type: ignore[arg-type]
    axes.set(ylim=(0, 105), ylabel="met, %")
    axes.grid(alpha=0.3)
    return _svg(figure)


def _predictions(rows: Sequence[Row]) -> str:
    step = max(len(rows) // _MOST_POINTS, 1)
    figure = Figure(figsize=(9, 4), layout="constrained")
    found = [
        _scatter(axes, rows[::step], name) for axes, name in zip(figure.subplots(1, 2), ("ttft", "tpot"), strict=True)
    ]
    return _svg(figure) if any(found) else ""


def _scatter(axes: Axes, rows: Sequence[Row], name: str) -> bool:
    """Draw a latency's predictions against observations. Return whether there are any."""
    points = [
        (predicted, observed, row.is_met)
        for row in rows
        if (predicted := getattr(row, f"predicted_{name}_median_ms")) and (observed := getattr(row, f"{name}_ms"))
    ]
    axes.set(xlabel=f"predicted {name.upper()}, ms", ylabel="observed, ms", xscale="log", yscale="log")
    for axis in (axes.xaxis, axes.yaxis):
        axis.set_major_locator(LogLocator(subs=(1, 2, 5)))
        axis.set_major_formatter(StrMethodFormatter("{x:g}"))
        axis.set_minor_formatter(NullFormatter())
    axes.grid(alpha=0.3)
    if not points:
        return False
    colours = [_GREY if met is None else _BLUE if met else _ORANGE for *_, met in points]
    axes.scatter([one[0] for one in points], [one[1] for one in points], s=6, c=colours, alpha=0.6)
    both = [value for one in points for value in one[:2]]
    ends = (min(both) / 1.3, max(both) * 1.3)
    axes.plot(ends, ends, color="black", linewidth=0.8)
    axes.set(xlim=ends, ylim=ends)
    return True


def _svg(figure: Figure) -> str:
    """Return the picture as an element of HTML, the same for the same figures."""
    text = io.StringIO()
    with mpl.rc_context({"svg.hashsalt": "report", "svg.fonttype": "none"}):
        figure.savefig(text, format="svg", metadata={"Date": None})
    found = text.getvalue()
    return found[found.index("<svg") :]
