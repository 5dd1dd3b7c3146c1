import numpy as np
import pytest

from lab.evaluation.studies.state_aware import STATE, compare_state_aware, state_aware_rows
from model_store import ROW_NAMES


def test_a_request_alone_has_the_predicted_tpot() -> None:
    """The two predictions differ only by the difference between expected and true length."""
    rows, tpot_ms = state_aware_rows("poisson", 0.2, None, 60.0)
    state = dict(zip(STATE, rows[:, len(ROW_NAMES) :].T, strict=True))
    assert len(tpot_ms) >= 5
    assert not state["engine_decodes"].any()
    assert state["foreseen_tpot_ms"] == pytest.approx(tpot_ms, rel=0.03)


def test_rows_of_a_busy_pool_have_the_engines_state() -> None:
    rows, tpot_ms = state_aware_rows("bursts", 120.0, None, 12.0)
    assert rows.shape == (len(tpot_ms), len(ROW_NAMES) + len(STATE))
    assert len(tpot_ms) > 200
    state = dict(zip(STATE, rows[:, len(ROW_NAMES) :].T, strict=True))
    assert (state["engine_kv_tokens"] >= state["engine_decodes"]).all()
    assert np.median(state["engine_decodes"]) > 1
    assert np.corrcoef(np.log(state["foreseen_tpot_ms"]), np.log(tpot_ms))[0, 1] > 0.5


def test_too_few_answers_give_no_result() -> None:
    assert compare_state_aware("poisson", 0.2, None) is None
