"""A tokenizer for judges of simulated servers, whose answers repeat one word.

Judges draw prompts from its entries, and some count the tokens of answers with it.
"""

import json
from pathlib import Path
from pydoc_data.topics import topics

from tokenizers import Tokenizer, decoders, models, pre_tokenizers, trainers

from simulator.answer import WORD

_ENTRIES = 4096
_END = "<|im_end|>"
# Judges with chat requests ask for a template. Simulated servers have none: they read the messages' text alone.
_TEMPLATE = "{% for message in messages %}{{ message.content }}{% endfor %}"
# The word must be one token; the topics of Python's documentation teach the rest.
_REPEATS = 1_000


def write_tokenizer(folder: Path) -> Path:
    """Write the tokenizer's files in the form that transformers reads, and return the folder."""
    folder.mkdir(parents=True, exist_ok=True)
    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    alphabet = pre_tokenizers.ByteLevel.alphabet()
    trainer = trainers.BpeTrainer(
        vocab_size=_ENTRIES, special_tokens=[_END], initial_alphabet=alphabet, show_progress=False
    )
    tokenizer.train_from_iterator([*topics.values(), WORD * _REPEATS], trainer)
    tokenizer.save(str(folder / "tokenizer.json"))
    settings = {
        "tokenizer_class": "PreTrainedTokenizerFast",
        "model_max_length": 1_000_000,
        "eos_token": _END,
        "pad_token": _END,
        "bos_token": _END,
        "clean_up_tokenization_spaces": False,
        "chat_template": _TEMPLATE,
    }
    (folder / "tokenizer_config.json").write_text(json.dumps(settings, indent=2) + "\n")
    return folder
