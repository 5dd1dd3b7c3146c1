"""`python -m lab.bench.trainer.poisoning`: how far wrong rows move the predictions of a trainer.

Two trainers learn from the same clean rows. One of them is sent wrong rows as well. Both take the trainer's own steps:
ingestion, window, fit and gate.
"""

import asyncio
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import cache

import click
import msgspec
import numpy as np

from lab.bench.trainer.law import make_entries
from model_store import ROW_NAMES
from trainer.fitter import Fitter
from trainer.graph import Graph
from trainer.ingestion import Ingestion
from trainer.job import Job
from trainer.settings import FitSettings, JobSettings
from trainer.window import Window
from trainer.wire import Matrix, Samples, decode_batch, join

SETTINGS = JobSettings(FitSettings(quantiles=(0.9, 0.5)), trainer_id="poisoning")
SHARES = (0.05, 0.12, 0.2)
# Clean rows before the attack, and in each pass.
_BEFORE, _PER_PASS = 4_000, 1_000
_PASSES_DURING, _PASSES_AFTER = 2, 2
# Clean rows that arrive between two bursts of wrong ones.
_BETWEEN_BURSTS = 100
_PROBES = 1_000
_ATTACK_SEED, _SEED_AFTER = 10_000, 300
# Changes clean rows to wrong ones.
Attack = Callable[[Samples], Samples]


def law_samples(rows: int, seed: int, factor: float = 1.0) -> Samples:
    """Return clean rows of the benchmark's law. `factor` multiplies the latencies."""
    return decode_batch(msgspec.json.encode({"entries": make_entries(rows, seed, factor)}))


def _constant(latency_ms: float) -> Attack:
    def change(rows: Samples) -> Samples:
        same = np.full(len(rows), latency_ms, dtype=np.float32)
        return Samples(rows.features, same, same)

    return change


def _scaled(factor: float) -> Attack:
    def change(rows: Samples) -> Samples:
        return Samples(rows.features, rows.ttft_ms * np.float32(factor), rows.tpot_ms * np.float32(factor))

    return change


def _random(rows: Samples) -> Samples:
    """Any latency from a microsecond to an hour."""
    rng = np.random.default_rng(len(rows))
    any_ms = np.exp(rng.uniform(np.log(1e-3), np.log(3.6e6), (2, len(rows)))).astype(np.float32)
    return Samples(rows.features, *any_ms)


def _one_place(rows: Samples) -> Samples:
    """Repeat one row with five times its latency, so that wrong rows are the majority at one place."""
    only = rows.part(np.arange(len(rows)) == 0)
    return _scaled(5.0)(join([only] * len(rows)))


ATTACKS: dict[str, Attack] = {
    "1e12 ms": _constant(1e12),
    "an hour": _constant(3.6e6),
    "zero": _constant(0.0),
    "1 us": _constant(1e-3),
    "random": _random,
    "0.3 times": _scaled(0.3),
    "1.3 times": _scaled(1.3),
    "1.5 times": _scaled(1.5),
    "2 times": _scaled(2.0),
    "3 times": _scaled(3.0),
    "10 times": _scaled(10.0),
    "one place": _one_place,
}


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
    """The ratio between predictions and those of clean models, at the 99th percentile of situations: the worst target.

    `during`: the worst pass of the attack. `after`: two passes after it. `refusals`: what the gate refused.
    """

    during: float
    after: float
    refusals: Sequence[str]


def measure(attack: Attack, share: float, *, from_start: bool = False, in_bursts: bool = False) -> Found:
    """Attack a trainer. `share`: the wrong rows' share of all new rows. `from_start`: it has no clean model before."""
    clean = _clean_predictions(from_start)
    trainer, during = _started(from_start), []
    for number in range(_PASSES_DURING):
        trainer.add(_poisoned(law_samples(_PER_PASS, number), attack, share, _ATTACK_SEED + number, in_bursts))
        trainer.learn()
        during.append(trainer.predict(_probes()))
    for number in range(_PASSES_AFTER):
        trainer.add(law_samples(_PER_PASS, _SEED_AFTER + number))
        trainer.learn()
    after = _worst_ratio(trainer.predict(_probes()), clean)
    return Found(max(_worst_ratio(one, clean) for one in during), after, trainer.refusals)


@cache
def _clean_predictions(from_start: bool) -> Sequence[Mapping[str, Matrix]]:
    """Return the predictions after each pass of a trainer that is sent clean rows only. All attacks share it."""
    trainer = _started(from_start)
    predictions = [trainer.predict(_probes())] if not from_start else []
    for seed in (*range(_PASSES_DURING), *range(_SEED_AFTER, _SEED_AFTER + _PASSES_AFTER)):
        trainer.add(law_samples(_PER_PASS, seed))
        trainer.learn()
        predictions.append(trainer.predict(_probes()))
    return predictions


def _started(from_start: bool) -> TrainerInMemory:
    trainer = TrainerInMemory()
    if not from_start:
        trainer.add(law_samples(_BEFORE, 500))
        trainer.learn()
    return trainer


@cache
def _probes() -> Matrix:
    return law_samples(_PROBES, 999).features


def _poisoned(rows: Samples, attack: Attack, share: float, seed: int, in_bursts: bool) -> Samples:
    wrong = attack(law_samples(round(len(rows) * share / (1 - share)), seed))
    both = join([rows, wrong])
    order = np.random.default_rng(seed).permutation(len(both))
    if in_bursts:
        bursts = len(rows) // _BETWEEN_BURSTS
        at = np.concatenate([np.arange(len(rows)) / len(rows), np.arange(len(wrong)) * bursts // len(wrong) / bursts])
        order = np.argsort(at, kind="stable")
    return Samples(both.features[order], both.ttft_ms[order], both.tpot_ms[order])


def _worst_ratio(predicted: Mapping[str, Matrix], clean: Sequence[Mapping[str, Matrix]]) -> float:
    """Return how far predictions lie outside the range of the clean models' predictions, as a factor."""
    found = []
    for name, answers in predicted.items():
        each = np.stack([models[name] for models in clean])
        ratios = np.maximum(answers / each.max(axis=0), each.min(axis=0) / answers)
        found.append(float(np.quantile(ratios, 0.99)))
    return max([1.0, *found])


@click.command(context_settings={"show_default": True, "help_option_names": ["-h", "--help"]})
@click.option("--from-start", is_flag=True, help="Attack a trainer that has no clean model yet.")
@click.option("--in-bursts", is_flag=True, help="Send the wrong rows in bursts, as one client would.")
@click.option("--attack", "names", multiple=True, type=click.Choice(list(ATTACKS)), help="Only this one; repeatable.")
@click.option("--share", "shares", multiple=True, type=float, default=SHARES, help="Share of wrong rows; repeatable.")
def main(from_start: bool, in_bursts: bool, names: tuple[str, ...], shares: tuple[float, ...]) -> None:
    """Print how far wrong rows move a trainer's predictions."""
    click.echo("| latencies of the wrong rows | share | ratio during | ratio after | refused |")
    click.echo("|---|---:|---:|---:|---|")
    for name in names or ATTACKS:
        for share in shares:
            found = measure(ATTACKS[name], share, from_start=from_start, in_bursts=in_bursts)
            refused = ", ".join(sorted(set(found.refusals)))
            click.echo(f"| {name} | {share:.0%} | {found.during:.3g} | {found.after:.3g} | {refused} |")


if __name__ == "__main__":
    main()
