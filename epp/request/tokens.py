"""Find a prompt's length in tokens: count by the model's tokenizer, or estimate from the usage that servers report."""

from pathlib import Path
from typing import Any

from epp.exceptions import ConfigError

# Bytes per token of an unknown model, as is usual for English and code.
_PRIOR_BYTES_PER_TOKEN = 4.0
# Weight of one response in the moving average.
_WEIGHT = 0.02
# Limit on the models that are remembered, since a client may send any model name.
_MOST_MODELS = 1000


class TokenEstimator:
    """Bytes per token for each model, as a moving average over the usage that responses carry."""

    def __init__(self) -> None:
        self._bytes_per_token: dict[str, float] = {}

    def estimate(self, model: str, prompt_bytes: int) -> int:
        return round(prompt_bytes / self._bytes_per_token.get(model, _PRIOR_BYTES_PER_TOKEN))

    def learn(self, model: str, prompt_bytes: int, prompt_tokens: int) -> None:
        """Learn from one response's count of prompt tokens; prompts under 16 tokens or bytes are ignored."""
        if prompt_tokens < 16 or prompt_bytes < 16:
            return
        known = self._bytes_per_token.get(model)
        if known is None and len(self._bytes_per_token) >= _MOST_MODELS:
            return
        known = _PRIOR_BYTES_PER_TOKEN if known is None else known
        self._bytes_per_token[model] = known + _WEIGHT * (prompt_bytes / prompt_tokens - known)


class Tokenizer:
    """A tokenizer read from a Hugging Face tokenizer.json. Counting is thread-safe and releases the GIL."""

    def __init__(self, path: Path) -> None:
        try:
            from tokenizers import Tokenizer as Loaded
        except ImportError as error:
            raise ConfigError(
                "--tokenizer needs the package tokenizers: install Headroom with its extra tokenizer"
            ) from error
        file = path / "tokenizer.json" if path.is_dir() else path
        try:
            self._tokenizer: Any = Loaded.from_file(str(file))
        except Exception as error:  # The library raises nothing more specific.
            raise ConfigError(f"--tokenizer: can't read {file}: {error}") from error

    def count(self, text: str) -> int:
        return len(self._tokenizer.encode(text, add_special_tokens=False).ids)
