"""The trainer's configuration, read once at start."""

import os
import socket
from dataclasses import dataclass

from trainer.settings import FitSettings, JobSettings
from trainer.training_pass import PassSettings


@dataclass(frozen=True, kw_only=True)
class Config:
    """The values of the trainer's flags; the fields have the flags' names."""

    host: str
    port: int
    cert_path: str = ""
    token_file: str = ""
    model_store: str
    signing_key_file: str = ""
    verify_key_file: str = ""
    keep_generations: int
    sample_journal: str
    retraining_interval_sec: float
    min_samples_for_retrain: int
    min_samples_for_retrain_fresh: int | None
    model_type: str
    objective_type: str
    quantile_alpha: float
    extra_quantiles: tuple[float, ...]
    max_training_data_size_per_bucket: int
    test_train_ratio: float
    max_test_data_size: int
    sample_weighting_for_prefix_cache: bool
    trees: int
    depth: int
    learning_rate: float
    threads: int
    gate_tolerance: float
    drift_tolerance: float
    canary_rows: int
    allowed_outliers: float
    max_source_share: float
    max_body_bytes: int
    log_level: str

    @property
    def quantile(self) -> float | None:
        return self.quantile_alpha if self.objective_type == "quantile" else None

    @property
    def fit(self) -> FitSettings:
        more = (quantile for quantile in dict.fromkeys(self.extra_quantiles) if quantile != self.quantile_alpha)
        return FitSettings(
            model_type=self.model_type,
            quantiles=(self.quantile_alpha, *more) if self.objective_type == "quantile" else (),
            trees=self.trees,
            depth=self.depth,
            learning_rate=self.learning_rate,
            threads=self.threads,
        )

    def pass_settings(self) -> PassSettings:
        fresh = self.min_samples_for_retrain_fresh
        return PassSettings(
            job=JobSettings(
                fit=self.fit,
                trainer_id=f"{socket.gethostname()}-{os.getpid()}",
                tolerance=self.gate_tolerance,
                drift_tolerance=self.drift_tolerance,
                allowed_outliers=self.allowed_outliers,
                weigh_prefixes=self.sample_weighting_for_prefix_cache,
                # TTFT and TPOT are fitted one after the other in one interval.
                budget_s=self.retraining_interval_sec / 2,
            ),
            min_samples=self.min_samples_for_retrain,
            min_samples_fresh=self.min_samples_for_retrain if fresh is None else fresh,
            keep_generations=self.keep_generations,
            canary_rows=self.canary_rows,
        )
