"""Measure the estimate of prompt tokens against tokenizers, as responses come in one after another."""

import random
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
from tokenizers import Tokenizer, decoders, models, pre_tokenizers, trainers

from epp.request.text_kinds import Floats, count_kinds
from epp.request.tokens import TokenEstimator
from lab.bench.tokens.texts import Texts, conversation, draw_messages

Count = Callable[[str], int]

# Tokens that the chat template of the measured server adds to a message, and to a conversation.
_PER_MESSAGE, _PER_CONVERSATION = 5, 3
_VOCABULARY = 4096
_MODEL = "model"


@dataclass(frozen=True, slots=True)
class Errors:
    """The relative errors of estimates, in the order of the requests, and the kind of each request."""

    errors: Floats
    kinds: list[str]

    def median(self, first: int, last: int | None = None, kind: str = "") -> float:
        """Return the median of the requests from number `first` to before `last`, all or those of one kind."""
        wanted = [not kind or one == kind for one in self.kinds[first:last]]
        return float(np.median(self.errors[first:last][wanted]))


def measure(count: Count, source: Texts, *, mixes_messages: bool, requests: int, seed: int = 1) -> Errors:
    """Estimate conversations, each before the server's count of it is known.

    With `mixes_messages` each message is of a kind of its own, and otherwise all messages of a conversation are of one.
    """
    rng, tokens = random.Random(seed), TokenEstimator()
    errors, drawn = [], []
    for _ in range(requests):
        kind = rng.choice(sorted(source))
        messages = draw_messages(rng, sorted(source) if mixes_messages else [kind], source)
        text = conversation(messages)
        counted = sum(count(message) + _PER_MESSAGE for message in messages) + _PER_CONVERSATION
        kinds = count_kinds(text, len(text.encode()))
        errors.append(abs(tokens.estimate(_MODEL, kinds) / counted - 1))
        drawn.append("mixed" if mixes_messages else kind)
        tokens.learn(_MODEL, kinds, counted)
    return Errors(np.array(errors), drawn)


def trained(source: Texts) -> Count:
    """Train a byte-level BPE tokenizer on the texts, as those of Llama and Qwen are. Return its count of tokens."""
    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=_VOCABULARY, show_progress=False, initial_alphabet=pre_tokenizers.ByteLevel.alphabet()
    )
    tokenizer.train_from_iterator(source.values(), trainer)
    return counting(tokenizer)


def counting(tokenizer: Tokenizer) -> Count:
    return lambda text: len(tokenizer.encode(text, add_special_tokens=False).ids)
