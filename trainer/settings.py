"""How models are fitted and judged."""

import msgspec

MODEL_TYPES = ("xgboost", "lightgbm", "bayesian_ridge")


class FitSettings(msgspec.Struct, frozen=True):
    """No `quantiles` fits the mean. Trees and depth are a budget: each costs at every prediction of every request."""

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
        """The quantile of each model, the one that clients are answered with first; None for a mean."""
        return self.quantiles or (None,)

    @property
    def in_logarithms(self) -> bool:
        """Trees fit quantiles to the logarithm, where an error of a tenth weighs alike for 20 ms and for 20 s.

        A quantile of the logarithm is the logarithm of the quantile; of a mean that isn't true. A linear model is
        left with the latency itself, which is about linear in the tokens.
        """
        return bool(self.quantiles) and self.model_type != "bayesian_ridge"

    @property
    def further_trees(self) -> int:
        """Trees that an incremental fit adds."""
        return max(1, self.trees // 6)


class JobSettings(msgspec.Struct, frozen=True):
    """How every target is fitted and judged. `budget_s` is the time that a fit may take before it is cut short."""

    fit: FitSettings
    trainer_id: str
    tolerance: float = 0.1
    drift_tolerance: float = 0.2
    weigh_prefixes: bool = False
    budget_s: float = float("inf")
