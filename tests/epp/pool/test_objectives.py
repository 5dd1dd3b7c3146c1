from epp.pool.objectives import Objectives


def test_an_unknown_objective_is_sheddable_only_by_its_name() -> None:
    objectives = Objectives()
    assert [objectives.priority_of(name) for name in ("", "chat", "batch-sheddable", "sheddable")] == [0, 0, -1, -1]
    objectives.replace({"chat": 10, "sheddable": 0})
    assert [objectives.priority_of(name) for name in ("", "chat", "batch-sheddable", "sheddable")] == [0, 10, -1, 0]
    objectives.replace({})
    assert objectives.priority_of("chat") == 0
