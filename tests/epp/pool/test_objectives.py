from epp.pool.objectives import Objectives


def test_known_objectives_have_their_priority_and_others_say_by_their_name_whether_they_can_be_shed() -> None:
    objectives = Objectives()
    assert [objectives.priority_of(name) for name in ("", "chat", "batch-sheddable", "sheddable")] == [0, 0, -1, -1]
    objectives.replace({"chat": 10, "sheddable": 0})
    assert [objectives.priority_of(name) for name in ("", "chat", "batch-sheddable", "sheddable")] == [0, 10, -1, 0]
    objectives.replace({})
    assert objectives.priority_of("chat") == 0
