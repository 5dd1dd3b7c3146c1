"""Measure how well the picker estimates prompt tokens without a tokenizer, and how long that takes."""

import timeit
from collections.abc import Mapping, Sequence
from pathlib import Path

import click
from tokenizers import Tokenizer

from epp.request.text_kinds import count_kinds
from epp.request.tokens import TokenEstimator
from lab.bench.figures import report, steps, write
from lab.bench.tokens.errors import Count, counting, measure, trained
from lab.bench.tokens.texts import conversation, halves, texts

# Requests between which errors are given: before anything is learnt, and when 20 and 100 responses have come.
_SPANS = {"of_first_20": (0, 20), "after_20": (20, 100), "after_100": (100, 300)}
_REQUESTS = 300
_SIZES = (1_000, 10_000, 100_000)


@click.command(context_settings={"show_default": True, "help_option_names": ["-h", "--help"]})
@click.option(
    "--tokenizer",
    "tokenizers",
    multiple=True,
    type=click.Path(exists=True, dir_okay=False, path_type=Path),
    help="A tokenizer.json to measure beside those that are trained here; repeatable.",
)
@click.option("--json", "json_file", type=click.Path(dir_okay=False, path_type=Path), help="Write the figures here.")
def main(tokenizers: Sequence[Path], json_file: Path | None) -> None:
    """Print the median relative error of estimated prompt tokens, by tokenizer, traffic and responses seen."""
    training, measured = halves(texts())
    counts = {
        "english_bpe": trained({"prose": training["prose"]}),
        "bpe": trained(training),
        **{path.stem: counting(Tokenizer.from_file(str(path))) for path in tokenizers},
    }
    figures = _errors(counts, measured) | _times(measured)
    report(figures)
    if json_file:
        write(json_file, figures, ("tokenizers", "numpy"), {"requests": _REQUESTS})


def _errors(counts: Mapping[str, Count], source: Mapping[str, str]) -> dict[str, float]:
    figures = {}
    for name, count in steps(list(counts.items()), "tokenizers"):
        by_traffic = {
            traffic: measure(count, dict(source), mixes_messages=traffic == "mixed", requests=_REQUESTS)
            for traffic in ("mixed", "separate")
        }
        for traffic, found in by_traffic.items():
            for span, (first, last) in _SPANS.items():
                figures[f"token_error_{name}_{traffic}_{span}"] = found.median(first, last)
        for kind in source:
            figures[f"token_error_{name}_{kind}_after_100"] = by_traffic["separate"].median(100, None, kind)
    return figures


def _times(source: Mapping[str, str]) -> dict[str, float]:
    """Return the shortest times in us of counting kinds, and of learning from one response."""
    figures = {}
    for size in _SIZES:
        text = (source["prose"] * 10)[:size]
        once = timeit.Timer(lambda text=text: count_kinds(text, len(text)))  # type: ignore[misc]
        figures[f"token_kinds_us_{size}_bytes"] = min(once.repeat(50, 20)) / 20 * 1e6
    tokens, kinds = TokenEstimator(), count_kinds(conversation(["some words " * 100]), 1200)
    figures["token_learn_us"] = min(timeit.repeat(lambda: tokens.learn("m", kinds, 300), number=20, repeat=50)) / 20e-6
    return figures


if __name__ == "__main__":
    main()
