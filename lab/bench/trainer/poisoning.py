"""`python -m lab.bench.trainer.poisoning`: how far wrong rows move the predictions of a trainer.

Two trainers learn from the same clean rows. One of them is sent wrong rows as well. Both take the trainer's own steps:
ingestion, window, fit and gate.
"""

import asyncio
from collections.abc import Callable, Mapping, Sequence
from copy import deepcopy
from dataclasses import dataclass
from functools import cache
from pathlib import Path

import click
import numpy as np

from lab import markdown
from lab.bench.block import Block
from lab.bench.figures import steps, write
from lab.bench.trainer.wrong_rows import ATTACKS, Attack
from model_store import ROW_NAMES
from trainer.fitter import Fitter
from trainer.graph import Graph
from trainer.ingestion import Ingestion
from trainer.job import Job
from trainer.settings import FitSettings, JobSettings
from trainer.window import Window
from trainer.wire import Matrix, Samples, join

SETTINGS = JobSettings(FitSettings(quantiles=(0.9, 0.5)), trainer_id="poisoning")
SHARES = (0.05, 0.12, 0.2)
# Clean rows before the attack, and in each pass.
_BEFORE, _PER_PASS = 4_000, 1_000
_PASSES_DURING, _PASSES_AFTER = 2, 2
# Clean rows that arrive between two bursts of wrong ones.
_BETWEEN_BURSTS = 100
_PROBES = 1_000
_ATTACK_SEED, _SEED_AFTER, _SEEDS_APART = 10_000, 300, 100_000
BLOCK = Block("python -m lab.bench.trainer.poisoning --out")
_COLUMNS = ("during", "after", "worst during", "worst after")
_HEAD = ("latency of the wrong rows", "share", *_COLUMNS, f"first model: {_COLUMNS[0]}", *_COLUMNS[1:], "refused")


class TrainerInMemory:
    """A trainer without HTTP and without a store. `onnx` has the graphs in force, `refusals` the gate's refusals."""

    def __init__(self, settings: JobSettings = SETTINGS) -> None:
        self._settings = settings
        self._window = Window(5000, 0.1, 1000)
        self._ingestion = Ingestion(self._window, None)
        self._fitter = Fitter()
        self._law_began_at: dict[str, int] = {}
        self.onnx: dict[str, bytes] = {}
        self.refusals: list[str] = []

    def add(self, samples: Samples) -> None:
        asyncio.run(self._ingestion.accept("", samples))

    def learn(self) -> None:
        """Make a pass, by the trainer's steps and rules."""
        for name, began_at in self._law_began_at.items():
            self._window.targets[name].forget_replaced(began_at)
        data = {name: asyncio.run(target.data()) for name, target in self._window.targets.items()}
        for one in self._fitter.learn(Job(data, self._settings, self.onnx, self._law_began_at)):
            if one.law_began_at:
                self._law_began_at[one.manifest.model] = one.law_began_at
            if one.refusal:
                self.refusals.append(one.refused_for)
            else:
                self.onnx[one.manifest.model] = one.onnx

    def predict(self, features: Matrix) -> dict[str, Matrix]:
        """Return the quantile and the median of each target, [rows, 2]."""
        return {name: Graph(onnx).outputs(ROW_NAMES, features) for name, onnx in self.onnx.items()}


@dataclass(frozen=True, slots=True)
class Found:
    """Ratios between predictions and those of clean models: of the worst target, in the worst pass.

    `during` and `after`, two passes after the attack, are the 99th percentile of situations. `worst_during` and
    `worst_after` are the worst situation. `refusals`: what the gate refused.
    """

    during: float
    after: float
    worst_during: float
    worst_after: float
    refusals: Sequence[str]


def measure(attack: Attack, share: float, *, from_start: bool = False, in_bursts: bool = False, seed: int = 0) -> Found:
    """Attack a trainer. `share`: the wrong rows' share of all new rows. `from_start`: it has no clean model before."""
    clean, rows = _clean_predictions(attack.clean, from_start, seed), _Rows(attack.clean, seed)
    trainer, during = _started(rows, from_start), []
    for number in range(_PASSES_DURING):
        trainer.add(_poisoned(rows.of(_PER_PASS, number), rows, attack, share, _ATTACK_SEED + number, in_bursts))
        trainer.learn()
        during.append(_ratios(trainer.predict(rows.probes()), clean))
    for number in range(_PASSES_AFTER):
        trainer.add(rows.of(_PER_PASS, _SEED_AFTER + number))
        trainer.learn()
    after = _ratios(trainer.predict(rows.probes()), clean)
    worst = np.max(during, axis=0).tolist()
    return Found(worst[0], after[0], worst[1], after[1], trainer.refusals)


@dataclass(frozen=True, slots=True)
class _Rows:
    """A source of clean rows. Each seed gives other rows, and the same probes."""

    clean: Callable[[int, int], Samples]
    seed: int

    def of(self, count: int, number: int) -> Samples:
        return self.clean(count, number + _SEEDS_APART * self.seed)

    def probes(self) -> Matrix:
        return self.clean(_PROBES, 999).features


@cache
def _clean_predictions(
    clean: Callable[[int, int], Samples], from_start: bool, seed: int
) -> Sequence[Mapping[str, Matrix]]:
    """Return the predictions after each pass of a trainer that is sent clean rows only. All attacks share it."""
    rows = _Rows(clean, seed)
    trainer = _started(rows, from_start)
    predictions = [trainer.predict(rows.probes())] if not from_start else []
    for number in (*range(_PASSES_DURING), *range(_SEED_AFTER, _SEED_AFTER + _PASSES_AFTER)):
        trainer.add(rows.of(_PER_PASS, number))
        trainer.learn()
        predictions.append(trainer.predict(rows.probes()))
    return predictions


def _started(rows: _Rows, from_start: bool) -> TrainerInMemory:
    return deepcopy(_first_trainer(rows, from_start))


@cache
def _first_trainer(rows: _Rows, from_start: bool) -> TrainerInMemory:
    trainer = TrainerInMemory()
    if not from_start:
        trainer.add(rows.of(_BEFORE, 500))
        trainer.learn()
    return trainer


def _poisoned(clean: Samples, rows: _Rows, attack: Attack, share: float, number: int, in_bursts: bool) -> Samples:
    wrong = attack.change(rows.of(round(len(clean) * share / (1 - share)), number))
    both = join([clean, wrong])
    order = np.random.default_rng(number).permutation(len(both))
    if in_bursts:
        bursts = len(clean) // _BETWEEN_BURSTS
        at = np.concatenate([np.arange(len(clean)) / len(clean), np.arange(len(wrong)) * bursts // len(wrong) / bursts])
        order = np.argsort(at, kind="stable")
    return Samples(both.features[order], both.ttft_ms[order], both.tpot_ms[order])


def _ratios(predicted: Mapping[str, Matrix], clean: Sequence[Mapping[str, Matrix]]) -> tuple[float, float]:
    """Return how far predictions lie outside the range of the clean models' predictions, as factors.

    The first is the 99th percentile of situations, the second the worst situation.
    """
    found, worst = [1.0], [1.0]
    for name, answers in predicted.items():
        each = np.stack([models[name] for models in clean])
        ratios = np.maximum(answers / each.max(axis=0), each.min(axis=0) / answers)
        found.append(float(np.quantile(ratios, 0.99)))
        worst.append(float(ratios.max()))
    return max(found), max(worst)


def worst_of(found: Sequence[Found]) -> Found:
    """Return the worst figures of several seeds."""
    refusals = sorted({reason for one in found for reason in one.refusals})
    return Found(
        during=max(one.during for one in found),
        after=max(one.after for one in found),
        worst_during=max(one.worst_during for one in found),
        worst_after=max(one.worst_after for one in found),
        refusals=refusals,
    )


@click.command(context_settings={"show_default": True, "help_option_names": ["-h", "--help"]})
@click.option("--from-start", is_flag=True, help="Attack only a trainer that has no clean model yet.")
@click.option("--in-bursts", is_flag=True, help="Send the wrong rows in bursts, as one client would.")
@click.option(
    "--attack", "names", multiple=True, type=click.Choice(list(ATTACKS)), help="Measure only this attack; repeatable."
)
@click.option("--share", "shares", multiple=True, type=float, default=SHARES, help="Share of wrong rows; repeatable.")
@click.option(
    "--seeds",
    default=1,
    type=click.IntRange(1),
    help="Number of measurements, each with other rows. The worst is shown.",
)
@click.option("--out", "page", type=click.Path(dir_okay=False, path_type=Path), help="Write the table into this page.")
@click.option(
    "--json", "json_file", type=click.Path(dir_okay=False, path_type=Path), help="Write the figures to this file."
)
def main(
    from_start: bool,
    in_bursts: bool,
    names: tuple[str, ...],
    shares: tuple[float, ...],
    seeds: int,
    page: Path | None,
    json_file: Path | None,
) -> None:
    """Print how far wrong rows move a trainer's predictions, with a clean model before the attack and without."""
    BLOCK.require_place(page)
    rows, figures = list[tuple[str, ...]](), dict[str, float]()
    for name, share in steps([(name, share) for name in names or ATTACKS for share in shares], "attacks"):
        found = {
            start: worst_of(
                [
                    measure(ATTACKS[name], share, from_start=start, in_bursts=in_bursts, seed=seed)
                    for seed in range(seeds)
                ]
            )
            for start in ((True,) if from_start else (False, True))
        }
        rows.append(_row(name, share, found))
        figures |= _figures(name, share, found)
    table = markdown.table(_HEAD, rows)
    click.echo(table)
    if page:
        BLOCK.write(page, table)
    if json_file:
        write(json_file, figures, ("onnxruntime", "numpy"), {"seeds": seeds, "in_bursts": in_bursts})


def _row(name: str, share: float, found: Mapping[bool, Found]) -> tuple[str, ...]:
    refused = sorted({reason for one in found.values() for reason in one.refusals})
    return (name, f"{share:.0%}", *_ratio_cells(found.get(False)), *_ratio_cells(found.get(True)), ", ".join(refused))


def _ratio_cells(found: Found | None) -> Sequence[str]:
    if found is None:
        return ["-"] * len(_COLUMNS)
    return [f"{ratio:.3g}" for ratio in (found.during, found.after, found.worst_during, found.worst_after)]


def _figures(name: str, share: float, found: Mapping[bool, Found]) -> dict[str, float]:
    figures: dict[str, float] = {}
    for start, one in found.items():
        prefix = f"{'without' if start else 'with'}_model.{name}.{share:g}"
        figures |= {
            f"{prefix}.{column}": getattr(one, column) for column in ("during", "after", "worst_during", "worst_after")
        }
    return figures


if __name__ == "__main__":
    main()
