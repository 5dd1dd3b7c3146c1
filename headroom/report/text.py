"""A summary in words, for a terminal."""

from collections.abc import Iterator
from datetime import datetime

from headroom.report.gain import Gain
from headroom.report.intervals import Estimate
from headroom.report.summary import Errors, Interval, Summary

_BAR = 40


def lines(summary: Summary) -> Iterator[str]:
    """Yield the lines of the report."""
    yield f"{_requests(summary.requests)}, {summary.predicted:,} of them with predictions; {summary.failed:,} failed"
    if summary.attainment is None:
        yield "attainment: no request with objectives was observed"
    else:
        yield f"attainment: {share(summary.attainment)} of {summary.judged:,} requests met their objectives"
    if len(summary.by_profile) > 1:
        for name, found in summary.by_profile.items():
            yield f"  profile {name}: {share(found)}"
    for name, errors in summary.errors.items():
        yield _errors(name, errors)
    if summary.gain:
        yield ""
        yield from _gain(summary.gain)
    if summary.over_time:
        yield ""
        yield from _over_time(summary.over_time)


def share(found: Estimate) -> str:
    if found.half_width is None:
        return f"{100 * found.mean:.1f} %"
    return f"{100 * found.mean:.1f} % ± {100 * found.half_width:.1f}"


def minute(at: float) -> str:
    """Return the local minute of a Unix time."""
    return datetime.fromtimestamp(at).astimezone().strftime("%Y-%m-%d %H:%M")


def _requests(count: int) -> str:
    return f"{count:,} request" + ("" if count == 1 else "s")


def _errors(name: str, errors: Errors) -> str:
    return (
        f"predicted {name.upper()}: median error {errors.median_error:.0f} %, "
        f"{errors.within:.0f} % of the answers within what was predicted ({errors.requests:,} requests)"
    )


def _gain(gain: Gain) -> Iterator[str]:
    yield f"by prediction, {gain.requests:,} requests that were routed without it would have had:"
    yield f"  another server: {100 * gain.another:.1f} %; a refusal: {100 * gain.shed:.1f} %"
    yield f"  expected to meet their objectives: {share(gain.by_prediction)} instead of {share(gain.as_was)}"
    half_width = gain.gain.half_width
    sure = half_width is not None and abs(gain.gain.mean) > half_width
    interval = "" if half_width is None else f" ± {100 * half_width:.1f}"
    verdict = "" if sure else ", which may be chance: wait for more requests"
    yield f"  expected gain: {100 * gain.gain.mean:+.1f} points{interval}{verdict}"
    if gain.observed is None or gain.expected is None:
        yield "  no answer was observed, so nothing says how far expectations are off"
        return
    yield (
        f"  these figures are calibrated: of {gain.checked:,} observed answers, predictions alone expected "
        f"{100 * gain.expected:.1f} % in time, and {100 * gain.observed:.1f} % were"
    )


def _over_time(found: list[Interval]) -> Iterator[str]:
    yield "attainment over time"
    for one in found:
        at = minute(one.began_at)
        if one.attainment is None:
            yield f"  {at}  {'':{_BAR}}      -   {_requests(one.requests)}"
            continue
        bar = "#" * round(_BAR * one.attainment)
        yield f"  {at}  {bar:{_BAR}}  {100 * one.attainment:5.1f} %  {_requests(one.requests)}"
