from pathlib import Path

import pytest
from tokenizers import Tokenizer as Built
from tokenizers import models, pre_tokenizers

from epp.exceptions import ConfigError
from epp.request.text_kinds import Floats, count_kinds
from epp.request.tokens import TokenEstimator, Tokenizer
from lab.bench.tokens.errors import Count, measure, trained
from lab.bench.tokens.texts import halves, texts
from tests.epp.parts import CHAT, Gateway, build_director, queued_rows


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """Write a tokenizer to which every word is a token. Return its folder."""
    built = Built(models.WordLevel({"[UNK]": 0}, unk_token="[UNK]"))
    built.pre_tokenizer = pre_tokenizers.WhitespaceSplit()
    built.save(str(tmp_path / "tokenizer.json"))
    return tmp_path


@pytest.fixture(scope="module")
def english() -> Count:
    training, _ = halves(texts())
    return trained({"prose": training["prose"]})


def letters(count: int) -> Floats:
    return count_kinds("a" * count, count)


def test_an_estimate_follows_the_servers_counts() -> None:
    tokens = TokenEstimator()
    assert tokens.estimate("m", letters(400)) == 100
    for _ in range(100):
        tokens.learn("m", letters(3000), 1000)
    assert tokens.estimate("m", letters(300)) == pytest.approx(100, abs=2)
    assert tokens.estimate("other", letters(400)) == 100


def test_an_estimate_follows_a_change_of_the_model() -> None:
    tokens = TokenEstimator()
    for count in (1000, 600):
        for _ in range(500):
            tokens.learn("m", letters(3000), count)
    assert tokens.estimate("m", letters(3000)) == pytest.approx(600, rel=0.1)


def test_counts_beyond_the_text_hardly_move_an_estimate() -> None:
    tokens = TokenEstimator()
    for number in range(200):
        # One answer in ten was charged for something that the request doesn't show.
        tokens.learn("m", letters(3000), 100_000 if number % 10 == 5 else 1000)
    assert tokens.estimate("m", letters(3000)) == pytest.approx(1000, rel=0.1)


def test_model_names_of_clients_take_bounded_memory() -> None:
    tokens = TokenEstimator()
    for number in range(1500):
        tokens.learn(f"m{number}", letters(3000), 100)
    assert tokens.estimate("m1400", letters(400)) == 100
    assert tokens.estimate("m10", letters(400)) < 100


@pytest.mark.parametrize("mixes_messages", [True, False], ids=["mixed", "separate"])
def test_prompts_of_all_kinds_are_within_5_percent_after_100_responses(english: Count, mixes_messages: bool) -> None:
    """Half of the estimates are, of a tokenizer that knows English alone, for prose, code, JSON and Chinese."""
    _, measured = halves(texts())
    found = measure(english, measured, mixes_messages=mixes_messages, requests=160)
    assert found.median(100) < 0.05


async def test_a_configured_tokenizers_counts_are_marked_in_training_rows(folder: Path) -> None:
    director = build_director()
    gateway = Gateway(director, tokenizer=Tokenizer(folder))
    await gateway.request_headers()
    await gateway.request_body(CHAT)
    await gateway.response_headers()
    await gateway.response_body(b'data: {"choices":[{"delta":{"content":"a"}}]}\n\n')
    (record,) = director.books.decisions.newest(1)
    # Forty words of the prompt, and two marks of the template, each joined to a word.
    assert record.decision.request.input_tokens == 42
    (row,) = queued_rows(director)
    assert (row.input_token_length, row.input_length_source) == (42, "tokenizer")


async def test_token_ids_are_counted_and_not_encoded(folder: Path) -> None:
    director = build_director()
    gateway = Gateway(director, tokenizer=Tokenizer(folder))
    await gateway.request_headers()
    await gateway.request_body(b'{"model": "m", "prompt": [1, 2, 3, 4, 5]}')
    (record,) = director.books.decisions.newest(1)
    assert record.decision.request.input_tokens == 5


def test_a_file_that_is_no_tokenizer_is_refused(tmp_path: Path) -> None:
    (tmp_path / "tokenizer.json").write_text("{}")
    with pytest.raises(ConfigError, match="--tokenizer"):
        Tokenizer(tmp_path)
    with pytest.raises(ConfigError, match="absent"):
        Tokenizer(tmp_path / "absent.json")
