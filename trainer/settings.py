"""The settings of a fit and of a fitting job."""

import msgspec

MODEL_TYPES = ("xgboost", "lightgbm", "bayesian_ridge")


class FitSettings(msgspec.Struct, frozen=True):
    """Settings of a fit. Empty `quantiles` fit the mean. More trees and depth make each prediction slower."""

    model_type: str = "xgboost"
    quantiles: tuple[float, ...] = (0.9,)
    trees: int = 60
    depth: int = 4
    learning_rate: float = 0.2
    threads: int = 1

    @property
    def objective(self) -> str:
        return "quantile" if self.quantiles else "mean"

    @property
    def targets(self) -> tuple[float | None, ...]:
        """The quantile of each model, or None for a mean. Clients are answered with the first."""
        return self.quantiles or (None,)

    @property
    def in_logarithms(self) -> bool:
        """True if models are fitted to the latency's logarithm, where an error of 10 % weighs the same at any latency.

        The quantile of a logarithm is the logarithm of the quantile. This does not hold for a mean. A linear model
        fits the latency itself, which is about linear in the tokens.
        """
        return bool(self.quantiles) and self.model_type != "bayesian_ridge"

    @property
    def further_trees(self) -> int:
        """The number of trees that an incremental fit adds."""
        return max(1, self.trees // 6)


class JobSettings(msgspec.Struct, frozen=True):
    """Settings for every target.

    `budget_s`: if a whole fit would take longer, extend the previous models. `allowed_outliers`: believe up to this
    multiple of the usual share of rows that lie far from the median.
    """

    fit: FitSettings
    trainer_id: str
    tolerance: float = 0.1
    drift_tolerance: float = 0.2
    allowed_outliers: float = 1.0
    weigh_prefixes: bool = False
    budget_s: float = float("inf")
