"""The trainer and the embedded predictor in one process and in virtual time.

The trainer's own window, fitter and gate, and the predictor's own loading of the exported graphs; what is missing is
what takes real time between them: JSON, HTTP, the model store's files, other processes and threads. A fit is always a
whole one, since cutting it short depends on how fast the machine is.
"""

import asyncio
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import msgspec
import numpy as np

from epp.prediction.features import FeatureColumns
from epp.scheduling.snapshot import Predictions
from lab.evaluation.replay.bound_rows import LoadedModels
from lab.evaluation.replay.virtual_time import Delayed
from model_store import POD_TYPE_CODES, ROW_FEATURES, ROW_NAMES, TARGETS, Manifest
from model_store.manifest import decode, encode
from predictor.loading import LIMITS, Source, open_model
from predictor.model import Model
from trainer.fitter import Fitter
from trainer.job import FittedModel, Job
from trainer.settings import FitSettings, JobSettings
from trainer.window import Window
from trainer.wire import Matrix, Samples

# A row as it is added: [features, 1], then TTFT and TPOT in ms, 0 where it carries none.
Row = tuple[FeatureColumns, float, float]

_WHOLE = np.array([feature.is_count for feature in ROW_FEATURES])
_LOWEST = np.array([feature.minimum for feature in ROW_FEATURES], dtype=np.float32)
_HIGHEST = np.array([feature.maximum or np.inf for feature in ROW_FEATURES], dtype=np.float32)
_ROLE = ROW_NAMES.index("pod_type")
_MAY_BE_MISSING = np.array([feature.may_be_missing for feature in ROW_FEATURES])


class LearningSettings(msgspec.Struct, frozen=True):
    """When models are fitted, and to what. All but the two times and `min_new_rows` are the trainer's own defaults.

    A pass begins at most every `interval_s`, with `min_new_rows` since the last one at least; its models are in force
    `delay_s` later. That stands for sending the rows, the fit, publishing, and the predictor's next look: 1.5 s is what
    `bench_trainer.py` measures from a changed law to a changed prediction. In production the interval is 1 s by
    default; a longer one makes a replay faster, and what it learns older.
    """

    job: JobSettings = JobSettings(FitSettings(), trainer_id="evaluation")
    interval_s: float = 5.0
    delay_s: float = 1.5
    min_samples: int = 100
    min_new_rows: int = 100
    rows_per_bucket: int = 5000
    holdout_share: float = 0.1
    holdout_rows: int = 1000


class Models(msgspec.Struct, frozen=True):
    """What another run may start from: graphs, their manifests, and the window's rows. Plain bytes, in their order.

    `features` are float32 [rows, ROW_FEATURES], the latencies float32 [rows] in ms, 0 where a row carries none.
    """

    onnx: dict[str, bytes]
    manifests: dict[str, bytes]
    generation: int
    features: bytes = b""
    ttft_ms: bytes = b""
    tpot_ms: bytes = b""

    def samples(self) -> Samples:
        features, ttft_ms, tpot_ms = (
            np.frombuffer(data, dtype=np.float32) for data in (self.features, self.ttft_ms, self.tpot_ms)
        )
        return Samples(features.reshape(-1, len(ROW_NAMES)), ttft_ms, tpot_ms)


@dataclass(frozen=True, slots=True)
class Pass:
    """A pass at `at_s` of virtual time: rows trained on by target, real seconds, and what the gate refused and why."""

    at_s: float
    rows: dict[str, int]
    wall_s: float
    refusals: dict[str, str]
    law_factors: dict[str, float]


class VirtualTrainer:
    """Rows in, models out, predictions by them: all at once, at moments of virtual time. Not for an event loop."""

    def __init__(self, settings: LearningSettings, models: Models | None = None) -> None:
        self._settings = settings
        self._window = Window(settings.rows_per_bucket, settings.holdout_share, settings.holdout_rows)
        self._fitter = Fitter()
        self._new: list[Row] = []
        self._rows_since_pass = 0
        self._due_s = -np.inf
        self._law_began_at: dict[str, int] = {}
        self._onnx: dict[str, bytes] = {}
        self._manifests: dict[str, Manifest] = {}
        self._models: dict[str, Model] = {}
        self._generation = 0
        self._served: Delayed[LoadedModels | None] = Delayed(None)
        self.passes: list[Pass] = []
        if models:
            self._go_on_from(models)

    def add(self, features: FeatureColumns, ttft_ms: float = 0.0, tpot_ms: float = 0.0) -> None:
        """A row [features, 1] that nobody changes any more, and what was observed; 0 where it carries no such target.

        A value that the trainer would refuse is a ValueError at the next pass.
        """
        self._new.append((features, ttft_ms, tpot_ms))

    def refit_if_due(self, now_s: float) -> bool:
        """Whether a pass was made. Models that passed the gate predict `delay_s` later."""
        if now_s < self._due_s or self._rows_since_pass + len(self._new) < self._settings.min_new_rows:
            return False
        self._take_in()
        self._rows_since_pass = 0
        self._due_s = now_s + self._settings.interval_s
        return self._pass(now_s)

    def predict(self, columns: FeatureColumns, now_s: float) -> Predictions | None:
        """Of candidates [features, candidates], what the embedded predictor would answer; None where it would not."""
        loaded = self._served.at(now_s)
        if loaded is None:
            return None
        ttft_ms, tpot_ms = loaded.predict(columns)
        if not (np.isfinite(ttft_ms).all() and np.isfinite(tpot_ms).all()):
            return None
        quantiles = self._settings.job.fit.quantiles
        medians_ms = [of[quantiles.index(0.5)] for of in (ttft_ms, tpot_ms)] if 0.5 in quantiles else []
        return Predictions(ttft_ms[0], tpot_ms[0], loaded.generation, "embedded", *medians_ms)

    def predict_all(self, columns: FeatureColumns, now_s: float) -> tuple[Matrix, Matrix] | None:
        """Every output of both models, each [outputs, candidates], in the order of the settings' quantiles."""
        loaded = self._served.at(now_s)
        return None if loaded is None else loaded.predict(columns)

    def models(self) -> Models:
        """The newest models, whether or not they are in force yet, and all rows that the window holds."""
        self._take_in()
        held = asyncio.run(self._window.samples())
        return Models(
            onnx=self._onnx,
            manifests={name: encode(manifest) for name, manifest in self._manifests.items()},
            generation=self._generation,
            features=held.features.tobytes(),
            ttft_ms=held.ttft_ms.tobytes(),
            tpot_ms=held.tpot_ms.tobytes(),
        )

    def _take_in(self) -> None:
        if self._new:
            self._window.add(samples_of(self._new))
            self._rows_since_pass += len(self._new)
            self._new = []

    def _pass(self, now_s: float) -> bool:
        """The steps and rules of the trainer's own passes, but for the store."""
        began_at = time.perf_counter()
        for name, law_began_at in self._law_began_at.items():
            self._window.targets[name].forget_replaced(law_began_at)
        data = {name: asyncio.run(target.data()) for name, target in self._window.targets.items()}
        ready = {name: rows for name, rows in data.items() if len(rows.train) >= self._settings.min_samples}
        if not ready:
            return False
        learnt = self._fitter.learn(Job(ready, self._settings.job, self._onnx, self._law_began_at))
        self._law_began_at |= {one.manifest.model: one.law_began_at for one in learnt if one.law_began_at}
        passed = [one for one in learnt if not one.refusal]
        if passed:
            self._publish(passed, now_s + self._settings.delay_s)
        self.passes.append(
            Pass(
                at_s=now_s,
                rows={name: len(rows.train) for name, rows in ready.items()},
                wall_s=time.perf_counter() - began_at,
                refusals={one.manifest.model: one.refusal for one in learnt if one.refusal},
                law_factors={one.manifest.model: one.law_factor for one in learnt if one.law_began_at},
            )
        )
        return True

    def _go_on_from(self, models: Models) -> None:
        self._window.add(models.samples())
        self._manifests = {name: decode(data, Manifest, name) for name, data in models.manifests.items()}
        self._generation = models.generation
        self._serve(models.onnx, -np.inf)

    def _publish(self, learnt: Sequence[FittedModel], from_s: float) -> None:
        self._generation += 1
        self._manifests |= {one.manifest.model: one.manifest for one in learnt}
        self._serve({one.manifest.model: one.onnx for one in learnt}, from_s)

    def _serve(self, fresh: Mapping[str, bytes], from_s: float) -> None:
        """As a predictor loads what is new; nothing predicts until there are models of both latencies."""
        self._onnx = self._onnx | dict(fresh)
        self._models = self._models | {
            name: open_model(Source(name, self._generation, onnx, self._manifests[name]), LIMITS)
            for name, onnx in fresh.items()
        }
        if set(TARGETS) <= set(self._models):
            self._served.replace(LoadedModels(self._models, self._generation), from_s)


def samples_of(rows: Sequence[Row]) -> Samples:
    """What the trainer would read from these rows' JSON: counts are whole, other roles than the known ones missing.

    ValueError for what it would refuse.
    """
    features = np.ascontiguousarray(np.concatenate([row[0] for row in rows], axis=1, dtype=np.float32).T)
    features[:, _WHOLE] = np.rint(features[:, _WHOLE])
    features[~np.isin(features[:, _ROLE], list(POD_TYPE_CODES.values())), _ROLE] = np.nan
    latencies_ms = np.array([row[1:] for row in rows])
    good = ((features >= _LOWEST) & (features <= _HIGHEST)) | (np.isnan(features) & _MAY_BE_MISSING)
    if not good.all():
        row, column = np.argwhere(~good)[0].tolist()
        raise ValueError(f"row {row}: {ROW_NAMES[column]} can't be {features[row, column]}")
    if not (np.isfinite(latencies_ms) & (latencies_ms >= 0)).all():
        raise ValueError("a latency is negative or no finite number; 0 means that a row doesn't carry the target")
    return Samples(features, *latencies_ms.T.astype(np.float32))
