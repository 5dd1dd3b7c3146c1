"""Words for a decision of the picker, as /debug/decisions tells it."""

from collections.abc import Iterator, Mapping, Sequence
from datetime import UTC, datetime
from typing import Any

Told = Mapping[str, Any]
_LATENCIES = (("TTFT", "ttft_ms"), ("TPOT", "tpot_ms"))
_COLUMNS = {
    "waiting": "num_request_waiting",
    "running": "num_request_running",
    "KV cache": "kv_cache_percentage",
    "prefix": "prefix_cache_score",
}


def in_words(decision: Told) -> Iterator[str]:
    """Yield lines: the request, the choice with its reasons, all candidates, and what came of it."""
    yield from _request(decision)
    yield ""
    yield from _choice(decision)
    yield ""
    yield from _candidates(decision)
    yield ""
    yield from _outcome(decision)


def _request(decision: Told) -> Iterator[str]:
    decided_at = datetime.fromtimestamp(decision["decided_at"], UTC).strftime("%Y-%m-%d %H:%M:%S UTC")
    yield f"Request {decision['request_id']} for {decision['model']}, {decision['input_tokens']:,} prompt tokens"
    asked = [f"{name} {_ms(slo)}" for name, key in _LATENCIES if (slo := decision[f"slo_{key}"]) is not None]
    yield f"Objectives: {', '.join(asked) or 'none'}"
    yield f"Decided at {decided_at} in {decision['decision_ms']:.1f} ms"


def _choice(decision: Told) -> Iterator[str]:
    wanted, profile = decision["wanted_profile"], decision["profile"]
    yield f"It went to {decision['endpoint']} ({decision['address']}) by profile {profile}."
    if wanted != profile:
        yield f"Profile {wanted} was wanted. It was not used: {decision['prediction_error'] or 'no predictions'}."
    elif decision["prediction_error"]:
        yield f"Predictions did not decide: {decision['prediction_error']}."
    if decision["overload"] != "normal":
        yield f"The picker was overloaded, and picked by less work: {decision['overload']}."
    # Pickers of earlier versions don't tell it.
    if shadow := decision.get("shadow"):
        yield _shadow(shadow, decision["endpoint"])
    predicted = decision["predicted"]
    if not predicted:
        return
    yield f"Predicted ({decision['prediction']['source']}, generation {decision['prediction']['generation']}):"
    for name, key in _LATENCIES:
        yield f"  {_against(name, predicted[key], decision[f'slo_{key}'])}{_median(predicted, key)}"


def _shadow(shadow: Told, chosen: str) -> str:
    made, other = (f"{100 * shadow[key]:.0f} %" for key in ("chance_made", "chance"))
    if not shadow["endpoint"]:
        return f"By prediction it would have been refused: its chance to meet its objectives was {made}."
    if shadow["endpoint"] == chosen:
        return f"Prediction would have chosen the same; its chance to meet its objectives was {made}."
    return f"By prediction it would have gone to {shadow['endpoint']}, with a chance of {other} instead of {made}."


def _against(name: str, ms: float, slo_ms: float | None) -> str:
    if slo_ms is None:
        return f"{name} {_ms(ms)}"
    return f"{name} {_ms(ms)}, {_ms(abs(slo_ms - ms))} {'within' if ms <= slo_ms else 'beyond'} the objective"


def _median(predicted: Told, key: str) -> str:
    median_ms = predicted.get(key.replace("_ms", "_median_ms"))
    return "" if median_ms is None else f" (half are below {_ms(median_ms)})"


def _candidates(decision: Told) -> Iterator[str]:
    candidates = decision.get("candidates") or []
    ranked = sorted(candidates, key=lambda one: -one.get("score", float("-inf")))
    plugins = sorted({name for one in candidates for name in one.get("scores", {})})
    has_predictions = any("predicted" in one for one in candidates)
    heads = ["", "candidate", *_COLUMNS, *(["TTFT", "TPOT"] if has_predictions else []), "score", *plugins]
    rows = [_row(one, decision["endpoint"], plugins, has_predictions) for one in ranked]
    yield f"{len(candidates)} candidates, the best first:"
    yield from _table([heads, *rows])


def _row(candidate: Told, chosen: str, plugins: Sequence[str], has_predictions: bool) -> list[str]:
    features = candidate["features"]
    row = ["->" if candidate["endpoint"] == chosen else "", candidate["endpoint"]]
    row += ["?" if features[column] is None else f"{features[column]:.3g}" for column in _COLUMNS.values()]
    if has_predictions:
        predicted = candidate.get("predicted", {})
        row += [_ms(predicted[key]) if key in predicted else "?" for _, key in _LATENCIES]
    if candidate.get("filtered"):
        return [*row, "filtered out", *("" for _ in plugins)]
    scores = candidate["scores"]
    return [*row, f"{candidate['score']:.3f}", *(f"{scores[name]:.3f}" if name in scores else "" for name in plugins)]


def _table(rows: Sequence[Sequence[str]]) -> Iterator[str]:
    widths = [max(len(row[column]) for row in rows) for column in range(len(rows[0]))]
    for row in rows:
        yield "  ".join(text.ljust(width) for text, width in zip(row, widths, strict=True)).rstrip()


def _outcome(decision: Told) -> Iterator[str]:
    outcome = decision["outcome"]
    if outcome["status"] is None:
        yield "Its response has not begun."
        return
    yield f"Its response had status {outcome['status']}."
    for name, key in _LATENCIES:
        observed = outcome[key]
        yield f"  {name}: not observed" if observed is None else f"  {_against(name, observed, decision[f'slo_{key}'])}"
    if outcome["duration_ms"] is None:
        yield "  It is still being generated."
    else:
        tokens = outcome["output_tokens"]
        yield f"  {'unknown' if tokens is None else f'{tokens:,}'} output tokens in {_ms(outcome['duration_ms'])}"


def _ms(ms: float) -> str:
    return f"{ms / 1000:.2f} s" if ms >= 1000 else f"{ms:.0f} ms" if ms >= 10 else f"{ms:.1f} ms"
