"""The reference of the chart's values, docs/reference-values.md, from the chart itself."""

import json
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import yaml

CHART = Path(__file__).parents[2] / "helm" / "inferencepool"
_HEAD = """# All values of the chart

With this page you can look up every value of the Helm chart: its place, its default, and what it does.

[helm.md](helm.md) explains the important ones. The chart refuses a value that it doesn't know, and says so.

"""
_MORE = """
## Values without a default

These may be set, too. Keys of `config` are [settings of the servers](configure.md), which have their own defaults.

"""


def reference() -> str:
    """Return the reference."""
    text = (CHART / "values.yaml").read_text()
    given = set(_keys(yaml.safe_load(text)))
    known = _values(json.loads((CHART / "values.schema.json").read_text()))
    more = "\n".join(f"- `{name}`" for name in known if name not in given)
    return f"{_HEAD}```yaml\n{text.rstrip()}\n```\n{_MORE}{more}\n"


def _keys(values: Mapping[str, Any], before: str = "") -> Iterator[str]:
    for key, value in values.items():
        yield f"{before}{key}"
        if isinstance(value, dict):
            yield from _keys(value, f"{before}{key}.")


def _values(schema: dict[str, Any]) -> Iterator[str]:
    """Yield the path of each value that the schema knows, without those of the top level's `sidecars`."""

    def resolved(place: dict[str, Any]) -> dict[str, Any]:
        kind = place.get("$ref")
        found: dict[str, Any] = schema["definitions"][kind.rsplit("/", 1)[1]] if kind else place
        return found

    def below(place: dict[str, Any], before: str) -> Iterator[str]:
        for key, value in resolved(place).get("properties", {}).items():
            # A second place for inferenceExtension.sidecars.
            if f"{before}{key}" == "sidecars":
                continue
            inner = list(below(value, f"{before}{key}."))
            yield from inner or [f"{before}{key}"]

    yield from below(schema, "")
