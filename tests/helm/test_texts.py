"""Texts and numbers in flags, variables and plugin files reach the rendered objects unchanged."""

from hypothesis import Phase, example, given, settings
from hypothesis import strategies as st

from tests.helm.release import env, render

# Characters that a YAML file of values can hold unescaped. Helm cuts other spaces off a manifest's end.
TEXTS = st.text(
    st.characters(codec="utf-8", exclude_categories=["C", "Zl", "Zp", "Zs"], include_characters="\n\t "), max_size=60
)
LINES = st.text(
    st.characters(codec="utf-8", exclude_categories=["C", "Zl", "Zp", "Zs"], include_characters=" "), max_size=40
)
VARIABLES = st.from_regex(r"[A-Z][A-Z0-9_]{0,12}", fullmatch=True)
FILES = st.from_regex(r"[a-z][a-z0-9-]{0,12}[.]yaml", fullmatch=True)
NUMBERS = (
    st.integers(-(2**53) + 1, 2**53 - 1) | st.booleans() | st.floats(-1e6, 1e6).map(lambda number: round(number, 3))
)
# No shrinking: each example starts a helm process, so shrinking a failure would take minutes.
PHASES = (Phase.explicit, Phase.reuse, Phase.generate)


@settings(max_examples=15, phases=PHASES, derandomize=True)
@example({"A": "ends the list\n", "B": "=", "C": "<<"}, {"a.yaml": "line\n\n", "b.yaml": "="}, ["x: y", "=", "<<"])
@given(
    st.dictionaries(VARIABLES, TEXTS, min_size=3, max_size=20),
    st.dictionaries(FILES, TEXTS, min_size=2, max_size=10),
    st.lists(LINES, min_size=3, max_size=10),
)
def test_texts_arrive_unchanged(variables: dict[str, str], files: dict[str, str], flags: list[str]) -> None:
    release = render(
        {
            "inferenceExtension.env": variables,
            "inferenceExtension.pluginsCustomConfig": files,
            "inferenceExtension.flags": [{"name": f"x-{index}", "value": text} for index, text in enumerate(flags)],
        }
    )
    assert variables.items() <= env(release.containers["epp"]).items()
    data = release.one("ConfigMap", "my-slo-pool-epp")["data"]
    assert {**data, **files} == data
    assert {f"--x-{index}={text}" for index, text in enumerate(flags)} <= set(release.args)


@settings(max_examples=10, phases=PHASES, derandomize=True)
@given(st.lists(NUMBERS, min_size=20, max_size=40))
def test_numbers_arrive_unchanged(values: list[int | bool | float]) -> None:
    given_values = {f"V{index}": value for index, value in enumerate(values)}
    variables = env(render({"inferenceExtension.env": given_values}).containers["epp"])
    for name, value in given_values.items():
        text = variables[name]
        if isinstance(value, bool):
            assert text == str(value).lower()
        elif isinstance(value, int):
            assert text == str(value)
        else:
            assert float(text) == value
