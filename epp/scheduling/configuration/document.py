"""Read a YAML or JSON text into plain values, with the line of each value."""

import difflib
import math
import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any

import msgspec
import yaml

from epp.exceptions import ConfigError

_MAX_BYTES = 1 << 18
_MAX_VALUES = 20_000
_MAX_DEPTH = 50
_MERGE = "tag:yaml.org,2002:merge"
_PLAIN = ("tag:yaml.org,2002:map", "tag:yaml.org,2002:seq")
# The parts of msgspec's messages.
_AT = re.compile(r"(?P<problem>.*?)(?: - at `(?P<path>\$.*)`)?$", re.DOTALL)
_UNKNOWN = re.compile(r"Object contains unknown field `(.*)`")
_STEP = re.compile(r"(\.[^.\[]+|\[[^\]]*\])$")


class DocumentError(ConfigError):
    """An error in a document: `problem` at `path` (such as $.plugins[2].type), with the `line` of the path if known."""

    def __init__(self, problem: str, path: str = "$", line: int | None = None) -> None:
        place = path if line is None else f"line {line}: {path}"
        super().__init__(f"{place}: {problem}")
        self.problem = problem
        self.path = path
        self.line = line


@dataclass(frozen=True, slots=True)
class Document:
    """The values, and the line of each value by its path."""

    value: Any
    lines: Mapping[str, int]

    def error(self, problem: str, path: str) -> DocumentError:
        """Return an error with the line of `path`, or of the nearest enclosing value."""
        place = path
        while place not in self.lines and (step := _STEP.search(place)):
            place = place[: step.start()]
        return DocumentError(problem, path, self.lines.get(place))

    def located(
        self, error: msgspec.ValidationError, root: str = "$", known: Iterable[str] | None = None
    ) -> DocumentError:
        """Return an error of the value at `root` with its path and line. `known` are the fields to suggest from."""
        found = _AT.match(str(error))
        problem, path = (found["problem"], found["path"] or "$") if found else (str(error), "$")
        path = root + path[1:]
        unknown = _UNKNOWN.match(problem)
        if unknown is None:
            return self.error(problem, path)
        meant = f"; {suggest(unknown[1], known)}" if known is not None and path == root else ""
        return self.error(f"unknown field{meant}", f"{path}.{unknown[1]}")


def suggest(word: str, known: Iterable[str]) -> str:
    """Return the end of an error on an unknown word: the closest known word, or else all known words."""
    words = sorted(known)
    close = difflib.get_close_matches(word, words, n=1)
    return f"did you mean {close[0]!r}?" if close else f"known: {', '.join(words) or 'none'}"


def read_document(text: str) -> Document:
    """Read a text of at most 256 KiB. DocumentError for bad YAML, a repeated key, or a document over the limits."""
    try:
        if len(text.encode()) > _MAX_BYTES:
            raise DocumentError(f"the configuration is larger than {_MAX_BYTES} bytes")
        loader = yaml.SafeLoader(text)
        node = loader.get_single_node()
        if node is None:
            raise DocumentError("the configuration is empty")
        reader = _Reader(loader)
        return Document(reader.read(node, "$", 0), reader.lines)
    except yaml.MarkedYAMLError as error:
        mark = error.problem_mark or error.context_mark
        problem = ", ".join(part for part in (error.context, error.problem) if part)
        raise DocumentError(f"not YAML: {problem}", line=mark.line + 1 if mark else None) from error
    except yaml.reader.ReaderError as error:
        line = text.count("\n", 0, error.position) + 1
        raise DocumentError(f"not YAML: a character {chr(error.character)!r} is not allowed", line=line) from error
    except (yaml.YAMLError, ValueError) as error:
        raise DocumentError(f"not YAML: {error}") from error
    except RecursionError as error:
        raise DocumentError(f"nested more than {_MAX_DEPTH} levels deep") from error


@dataclass(slots=True)
class _Reader:
    """Turns nodes into values. A limit on the count of values bounds the expansion of nested aliases."""

    loader: yaml.SafeLoader
    lines: dict[str, int] = field(default_factory=dict)
    values: int = 0

    def read(self, node: yaml.Node, path: str, depth: int) -> Any:
        line = node.start_mark.line + 1
        self.lines.setdefault(path, line)
        self.values += 1
        if self.values > _MAX_VALUES:
            raise DocumentError(f"more than {_MAX_VALUES} values, counting each use of an alias", path, line)
        if depth > _MAX_DEPTH:
            raise DocumentError(f"nested more than {_MAX_DEPTH} levels deep", path, line)
        if not isinstance(node, yaml.ScalarNode) and node.tag not in _PLAIN:
            raise DocumentError(f"the tag {node.tag} is not allowed", path, line)
        if isinstance(node, yaml.SequenceNode):
            return [self.read(item, f"{path}[{index}]", depth + 1) for index, item in enumerate(node.value)]
        if isinstance(node, yaml.MappingNode):
            return self._mapping(node, path, depth)
        value = self.loader.construct_object(node)
        if isinstance(value, float) and not math.isfinite(value):
            raise DocumentError(f"expected a finite number, got {node.value}", path, line)
        return value

    def _mapping(self, node: yaml.MappingNode, path: str, depth: int) -> dict[str, Any]:
        values: dict[str, Any] = {}
        merged: dict[str, Any] = {}
        for key_node, value_node in node.value:
            line = key_node.start_mark.line + 1
            if key_node.tag == _MERGE:
                merged |= self._merged(value_node, path, depth)
                continue
            key = self.loader.construct_object(key_node) if isinstance(key_node, yaml.ScalarNode) else None
            if not isinstance(key, str):
                raise DocumentError("expected a string as the key", path, line)
            if key in values:
                raise DocumentError("this key is given twice", f"{path}.{key}", line)
            self.lines[f"{path}.{key}"] = line
            values[key] = self.read(value_node, f"{path}.{key}", depth + 1)
        return {**merged, **values}

    def _merged(self, node: yaml.Node, path: str, depth: int) -> dict[str, Any]:
        """Return the merged keys of `<<: *anchor` or of a list of anchors; the first mapping with a key wins."""
        merged: dict[str, Any] = {}
        for source in node.value if isinstance(node, yaml.SequenceNode) else [node]:
            values = self.read(source, f"{path}.<<", depth + 1)
            if not isinstance(values, dict):
                raise DocumentError("expected a mapping to merge", path, source.start_mark.line + 1)
            merged = {**values, **merged}
        return merged
