from serving.unused_variables import describe_unused


def test_a_variable_that_is_set_is_reported_with_the_reason() -> None:
    reasons = {"GONE": "it is always on", "EMPTY": "it has another name", "ABSENT": "nobody sets it"}
    assert list(describe_unused(reasons, {"GONE": "1", "EMPTY": "", "OTHER": "x"})) == [
        "GONE is set and not used: it is always on",
        "EMPTY is set and not used: it has another name",
    ]
