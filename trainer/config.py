"""The trainer's configuration, read once at the start."""

import os
import socket
from dataclasses import dataclass

from trainer.fitting import FitSettings
from trainer.training_pass import PassSettings


@dataclass(frozen=True, kw_only=True)
class Config:
    """Names are those of the flags."""

    host: str
    port: int
    model_store: str
    keep_generations: int
    sample_journal: str
    retraining_interval_sec: float
    min_samples_for_retrain: int
    model_type: str
    objective_type: str
    quantile_alpha: float
    max_training_data_size_per_bucket: int
    test_train_ratio: float
    max_test_data_size: int
    trees: int
    depth: int
    learning_rate: float
    threads: int
    gate_tolerance: float
    max_body_bytes: int

    @property
    def quantile(self) -> float | None:
        return self.quantile_alpha if self.objective_type == "quantile" else None

    def pass_settings(self) -> PassSettings:
        return PassSettings(
            fit=FitSettings(self.quantile, self.trees, self.depth, self.learning_rate, self.threads),
            min_samples=self.min_samples_for_retrain,
            tolerance=self.gate_tolerance,
            keep_generations=self.keep_generations,
            trainer_id=f"{socket.gethostname()}-{os.getpid()}",
        )
