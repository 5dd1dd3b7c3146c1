"""Texts of several kinds, from Python's standard library and a sample beside this file, and prompts cut from them."""

import argparse
import html.entities
import inspect
import json
import random
import tarfile
import textwrap
from functools import cache
from importlib.resources import files
from pydoc_data import topics
from types import ModuleType

Texts = dict[str, str]

_CODE: tuple[ModuleType, ...] = (argparse, inspect, tarfile, textwrap)
_PROSE_CHARACTERS = 150_000
# Characters of a message: lognormal around exp(6.5), and at most this many.
_MOST_CHARACTERS = 20_000


@cache
def texts() -> Texts:
    """Return a text of each kind."""
    return {
        "prose": "\n\n".join(topics.topics.values())[:_PROSE_CHARACTERS],
        "code": "\n".join(inspect.getsource(module) for module in _CODE),
        "chinese": files(__package__).joinpath("chinese.txt").read_text(),
        "json": _records(),
    }


def halves(whole: Texts) -> tuple[Texts, Texts]:
    """Split each text in two: one to train tokenizers with, one to measure with."""
    return (
        {kind: text[: len(text) // 2] for kind, text in whole.items()},
        {kind: text[len(text) // 2 :] for kind, text in whole.items()},
    )


def draw_messages(rng: random.Random, kinds: list[str], source: Texts) -> list[str]:
    """Return a conversation of one to six messages, each of one of the kinds."""
    return [_piece(rng, source[rng.choice(kinds)]) for _ in range(rng.choice((1, 1, 2, 3, 6)))]


def conversation(messages: list[str]) -> str:
    """Return the messages as the picker joins them."""
    return "".join(f"<|im_start|>user\n{message}<|im_end|>\n" for message in messages)


def _piece(rng: random.Random, text: str) -> str:
    length = round(min(rng.lognormvariate(6.5, 1.0), _MOST_CHARACTERS))
    repeats = -(-2 * length // len(text))
    start = rng.randrange(len(text))
    return (text * (repeats + 1))[start : start + length]


def _records() -> str:
    rng = random.Random(1)
    names = sorted(html.entities.html5)
    rows = [
        {"name": name.strip(";"), "id": rng.randrange(10**9), "price": round(rng.uniform(0, 500), 2), "ok": bool(i % 3)}
        for i, name in enumerate(names[:1000])
    ]
    return json.dumps(rows[:500], indent=2) + json.dumps(rows[500:])
