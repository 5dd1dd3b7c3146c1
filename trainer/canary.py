"""The canary: compares published models with their predecessors on rows that arrived afterwards.

The gate compares each model with the one before it, so losses can creep up within its tolerance, pass by pass. The
canary keeps the models that were in force before, until enough new rows have judged what replaced them.
"""

from collections.abc import Mapping
from dataclasses import dataclass

from model_store import ROW_NAMES
from trainer.gate import check_not_worse, losses
from trainer.graph import Graph
from trainer.job import FittedModel
from trainer.plausible import as_counted, limits_of
from trainer.window import Rows


@dataclass(frozen=True, slots=True)
class Predecessor:
    """A model that was in force, and the arrival number from which rows judge what replaced it."""

    model: FittedModel
    since: int


class Canary:
    """The predecessors of one trainer's published models, by target. It needs `min_rows` rows to judge; 0: never."""

    def __init__(self, min_rows: int, tolerance: float) -> None:
        self._min_rows = min_rows
        self._tolerance = tolerance
        self._in_force: dict[str, FittedModel] = {}
        self.predecessors: dict[str, Predecessor] = {}

    def follow(self, published: Mapping[str, FittedModel], arrivals: Mapping[str, int]) -> None:
        """Take note of a publication. Predecessors that are not judged yet stay."""
        for name in published:
            if self._min_rows and name in self._in_force:
                self.predecessors.setdefault(name, Predecessor(self._in_force[name], arrivals[name]))
        self._in_force |= published

    def put_back(self, models: Mapping[str, FittedModel]) -> None:
        """Take note that predecessors are in force again."""
        self._in_force |= models
        for name in models:
            self.predecessors.pop(name, None)

    def forget(self) -> None:
        """Begin anew, after another trainer or an operator has put other models in force."""
        self._in_force, self.predecessors = {}, {}

    def judge(self, name: str, holdout: Rows, law_began_at: int = 0) -> str:
        """Compare the model in force with its predecessor on held-out rows. Return why it is worse, or "". Blocking.

        Once there are enough rows, the predecessor is forgotten, unless the model in force is worse. A predecessor from
        before the present law is forgotten at once.
        """
        before = self.predecessors[name]
        if law_began_at > before.since:
            del self.predecessors[name]
            return ""
        rows = holdout.part(holdout.arrival >= before.since)
        if len(rows) < self._min_rows:
            return ""
        served, earlier = (
            Graph(model.onnx).predict(ROW_NAMES, rows.x) for model in (self._in_force[name], before.model)
        )
        believed, counted_ms = as_counted(rows.y, earlier, limits_of(name))
        quantile = before.model.manifest.outputs[0].quantile
        present, past = (losses(answers[believed], counted_ms[believed], quantile) for answers in (served, earlier))
        verdict = check_not_worse(present, past, self._tolerance)
        if verdict.passed:
            del self.predecessors[name]
        return verdict.reason
