"""Times of whole passes by window size, and the accuracy of shortened fits."""

import tempfile
import time

import numpy as np
from rich.progress import track

from lab.bench.trainer.law import make_target
from model_store import SCHEMAS, open_store
from trainer.fitter import Fitter, training_of
from trainer.gate import losses
from trainer.learners import Model, fit
from trainer.settings import FitSettings, JobSettings
from trainer.training_pass import PassSettings, run_pass
from trainer.window import Rows

# Factor by which latencies grow before the shortened fits.
_CHANGED = 1.3


def passes(sizes: list[int]) -> dict[str, float]:
    """Return the times to fit, export, gate and publish both targets, as medians of three."""
    figures: dict[str, float] = {}
    settings = PassSettings(JobSettings(FitSettings(), trainer_id="bench"), 100, 100, 5)
    for size in track(sizes, "passes"):
        data = {name: make_target(size, name) for name in SCHEMAS}
        with tempfile.TemporaryDirectory() as folder:
            store = open_store(folder)
            results = [run_pass(data, {}, {}, store, settings, Fitter().learn) for _ in range(3)]
        for stage in ("fit", "export", "gate", "publish", "pass"):
            figures[f"{stage}_{size}_s"] = float(np.median([result.seconds[stage] for result in results]))
    return figures


def cut_short(size: int) -> dict[str, float]:
    """Compare shortened fits with a whole fit, after latencies have grown by 30%.

    One shortened fit continues from the last model. The other has the same small number of trees, all new. Times and
    losses (of the logarithm) are ratios to those of the whole fit.
    """
    settings = FitSettings()
    few = settings.further_trees
    # Fewer trees need a higher learning rate.
    fewer = FitSettings(trees=few, learning_rate=min(1.0, settings.learning_rate * settings.trees / few / 2))
    before, after = make_target(size, "ttft"), make_target(size, "ttft", _CHANGED)
    last = fit(training_of("ttft", before.train, settings), settings)
    found = {}
    for name, kind, previous in (("whole", settings, ()), ("going_on", settings, last), ("fewer_trees", fewer, ())):
        started_at = time.perf_counter()
        models = fit(training_of("ttft", after.train, kind), kind, previous)
        found[name] = (time.perf_counter() - started_at, _loss(models[0], after.holdout))
    whole = found.pop("whole")
    return {
        f"{name}_{what}_over_whole_{size}": value[index] / whole[index]
        for name, value in found.items()
        for index, what in enumerate(("fit_s", "loss"))
    }


def _loss(model: Model, rows: Rows) -> float:
    held_out = training_of("ttft", rows, FitSettings())
    return float(losses(model.predict(held_out.x), held_out.y, FitSettings().quantiles[0]).mean())
