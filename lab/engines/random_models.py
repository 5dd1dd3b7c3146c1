"""Write small models of random weights that vLLM can serve. Runs in vLLM's environment, which has these packages.

`random_models.py FOLDER` writes:

- `tiny` (5 M parameters) and `small` (28 M): the same model family, so that one is several times as fast;
- `reasoning`: the weights of `tiny` with a chat template that begins a thought;
- `adapter-1` and `adapter-2`: LoRA adapters of `tiny`.

All share one byte-level BPE of 4,096 entries, trained on the documentation in Python's standard library. Some of its
tokens are no whole UTF-8 characters, as in real models. With random weights, lengths are as asked if a request ignores
the end of the sequence.
"""

import json
import sys
from pathlib import Path
from pydoc_data.topics import topics

import torch
from safetensors.torch import save_file
from tokenizers import Tokenizer, decoders, models, pre_tokenizers, trainers
from transformers import LlamaConfig, LlamaForCausalLM, PreTrainedTokenizerFast

ENTRIES = 4096
POSITIONS = 8192
ADAPTER_RANK = 8
# The tokens that vLLM's parsers look for: deepseek_r1 for thoughts, hermes for tool calls.
SPECIAL = ("<pad>", "<s>", "</s>", "<|im_start|>", "<|im_end|>")
MARKS = ("<think>", "</think>", "<tool_call>", "</tool_call>")
TEMPLATE = (
    "{% if tools %}<|im_start|>system\n{{ tools | tojson }}<|im_end|>\n{% endif %}"
    "{% for message in messages %}<|im_start|>{{ message.role }}\n"
    "{% if message.content is string %}{{ message.content }}"
    "{% else %}{% for part in message.content or [] %}{{ part.text }}{% endfor %}{% endif %}<|im_end|>\n{% endfor %}"
    "{% if add_generation_prompt %}<|im_start|>assistant\n{% endif %}"
)
THOUGHT = "{% if add_generation_prompt %}<think>\n{% endif %}"


def main(folder: Path) -> None:
    tokenizer = _tokenizer()
    torch.manual_seed(1)
    tiny = _model(hidden=256, layers=4, heads=4)
    _save(tiny, tokenizer, TEMPLATE, folder / "tiny")
    _save(tiny, tokenizer, TEMPLATE + THOUGHT, folder / "reasoning")
    _save(_model(hidden=512, layers=8, heads=8), tokenizer, TEMPLATE, folder / "small")
    for number in (1, 2):
        _save_adapter(tiny, folder / f"adapter-{number}")


def _tokenizer() -> Tokenizer:
    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    alphabet = pre_tokenizers.ByteLevel.alphabet()
    trainer = trainers.BpeTrainer(
        vocab_size=ENTRIES - len(MARKS), special_tokens=list(SPECIAL), initial_alphabet=alphabet, show_progress=False
    )
    tokenizer.train_from_iterator(topics.values(), trainer)
    # Added as plain tokens: parsers must see them in the text.
    tokenizer.add_tokens(list(MARKS))
    return tokenizer


def _model(*, hidden: int, layers: int, heads: int) -> LlamaForCausalLM:
    config = LlamaConfig(
        vocab_size=ENTRIES,
        hidden_size=hidden,
        intermediate_size=hidden * 2,
        num_hidden_layers=layers,
        num_attention_heads=heads,
        num_key_value_heads=heads,
        max_position_embeddings=POSITIONS,
        pad_token_id=0,
        bos_token_id=1,
        eos_token_id=2,
    )
    return LlamaForCausalLM(config).to(torch.float32)


def _save(model: LlamaForCausalLM, tokenizer: Tokenizer, template: str, folder: Path) -> None:
    model.save_pretrained(folder)
    names = dict(zip(("pad_token", "bos_token", "eos_token"), SPECIAL, strict=False))
    wrapped = PreTrainedTokenizerFast(tokenizer_object=tokenizer, model_max_length=POSITIONS, **names)
    wrapped.chat_template = template
    wrapped.save_pretrained(folder)


def _save_adapter(model: LlamaForCausalLM, folder: Path) -> None:
    folder.mkdir(parents=True)
    targets = ("q_proj", "v_proj")
    config = {
        "peft_type": "LORA",
        "task_type": "CAUSAL_LM",
        "r": ADAPTER_RANK,
        "lora_alpha": ADAPTER_RANK,
        "lora_dropout": 0.0,
        "bias": "none",
        "target_modules": list(targets),
    }
    (folder / "adapter_config.json").write_text(json.dumps(config))
    hidden = model.config.hidden_size
    tensors = {}
    for layer in range(model.config.num_hidden_layers):
        for target in targets:
            name = f"base_model.model.model.layers.{layer}.self_attn.{target}"
            tensors[f"{name}.lora_A.weight"] = torch.randn(ADAPTER_RANK, hidden) * 0.5
            tensors[f"{name}.lora_B.weight"] = torch.randn(hidden, ADAPTER_RANK) * 0.5
    save_file(tensors, folder / "adapter_model.safetensors")


if __name__ == "__main__":
    main(Path(sys.argv[1]))
