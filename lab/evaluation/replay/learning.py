"""The trainer and the embedded predictor, in one process and in virtual time.

This module uses the trainer's window, fitter and gate, and the predictor's loading of exported graphs. It leaves out
everything between them that takes real time: JSON, HTTP, the model store's files, other processes and threads. Every
fit is complete, because early stopping would depend on the machine's speed.
"""

import asyncio
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import msgspec
import numpy as np

from epp.prediction.features import FeatureColumns
from epp.prediction.wire import LengthSource
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

# A new row: [features, 1], then TTFT and TPOT in ms; 0 means that the row doesn't have this latency.
Row = tuple[FeatureColumns, float, float]

_WHOLE = np.array([feature.is_count for feature in ROW_FEATURES])
_LOWEST = np.array([feature.minimum for feature in ROW_FEATURES], dtype=np.float32)
_HIGHEST = np.array([feature.maximum or np.inf for feature in ROW_FEATURES], dtype=np.float32)
_ROLE = ROW_NAMES.index("pod_type")
_MAY_BE_MISSING = np.array([feature.may_be_missing for feature in ROW_FEATURES])


class LearningSettings(msgspec.Struct, frozen=True):
    """The settings of learning. All but the two times and `min_new_rows` are the trainer's defaults.

    A training pass begins at most every `interval_s`, and only with at least `min_new_rows` new rows. Its models serve
    `delay_s` later. The delay stands for sending the rows, the fit, publishing, and the predictor's next poll.
    `bench_trainer.py` measures 1.5 s from a changed law to a changed prediction. In production the default interval is
    1 s. A longer interval makes a replay faster, and its models older.
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
    """The start of another run: graphs, their manifests, and the window's rows, as bytes.

    `features` is float32 [rows, ROW_FEATURES]. The latencies are float32 [rows] in ms; 0 means that the row doesn't
    have this latency.
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
    """A training pass at `at_s` of virtual time: training rows by target, wall time, and the gate's refusals."""

    at_s: float
    rows: dict[str, int]
    wall_s: float
    refusals: dict[str, str]
    law_factors: dict[str, float]


class VirtualTrainer:
    """Learns from rows and predicts, at moments of virtual time. It runs event loops, so don't use it inside one."""

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
            self._start_from(models)

    def add(
        self,
        features: FeatureColumns,
        ttft_ms: float = 0.0,
        tpot_ms: float = 0.0,
        length_source: LengthSource = "estimate",
    ) -> None:
        """Add a row [features, 1] and its observed latencies; 0 means that the row doesn't have this latency.

        The caller must not change `features` afterwards. A value that the trainer would refuse raises ValueError at the
        next pass.
        """
        self._new.append((features, ttft_ms, tpot_ms))

    def refit_if_due(self, now_s: float) -> bool:
        """Make a training pass if one is due, and return whether it was made. Its models serve `delay_s` later."""
        if now_s < self._due_s or self._rows_since_pass + len(self._new) < self._settings.min_new_rows:
            return False
        self._take_in()
        self._rows_since_pass = 0
        self._due_s = now_s + self._settings.interval_s
        return self._pass(now_s)

    def predict(self, columns: FeatureColumns, now_s: float) -> Predictions | None:
        """Return the embedded predictor's answer for `columns` [features, candidates]; None if it has none."""
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
        """Return all outputs of both models, each [outputs, candidates], in the order of the settings' quantiles."""
        loaded = self._served.at(now_s)
        return None if loaded is None else loaded.predict(columns)

    def models(self) -> Models:
        """Return the newest models, even if they don't serve yet, and all rows of the window."""
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
        """Make a pass by the trainer's steps and rules, but without the model store."""
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

    def _start_from(self, models: Models) -> None:
        self._window.add(models.samples())
        self._manifests = {name: decode(data, Manifest, name) for name, data in models.manifests.items()}
        self._generation = models.generation
        self._serve(models.onnx, -np.inf)

    def _publish(self, learnt: Sequence[FittedModel], from_s: float) -> None:
        self._generation += 1
        self._manifests |= {one.manifest.model: one.manifest for one in learnt}
        self._serve({one.manifest.model: one.onnx for one in learnt}, from_s)

    def _serve(self, fresh: Mapping[str, bytes], from_s: float) -> None:
        """Load new models as a predictor does. Nothing serves until there are models of both latencies."""
        self._onnx = self._onnx | dict(fresh)
        self._models = self._models | {
            name: open_model(Source(name, self._generation, onnx, self._manifests[name]), LIMITS)
            for name, onnx in fresh.items()
        }
        if set(TARGETS) <= set(self._models):
            self._served.replace(LoadedModels(self._models, self._generation), from_s)


def samples_of(rows: Sequence[Row]) -> Samples:
    """Return the samples that the trainer would read from these rows' JSON. ValueError for what it would refuse.

    Counts are rounded to integers. An unknown role becomes NaN.
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
        raise ValueError("a latency is negative or not finite; use 0 if a row doesn't have the latency")
    return Samples(features, *latencies_ms.T.astype(np.float32))
