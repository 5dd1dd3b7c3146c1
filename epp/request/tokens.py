"""A prompt's length in tokens: counted by the model's tokenizer, or estimated, calibrated by what servers say."""

from pathlib import Path
from typing import Any

from epp.exceptions import ConfigError

_PRIOR_BYTES_PER_TOKEN = 4.0
_WEIGHT = 0.02
# A client may send any model name.
_MOST_MODELS = 1000


class TokenEstimator:
    """Bytes per token for each model, as a moving average over the usage that responses carry."""

    def __init__(self) -> None:
        self._bytes_per_token: dict[str, float] = {}

    def estimate(self, model: str, prompt_bytes: int) -> int:
        return round(prompt_bytes / self._bytes_per_token.get(model, _PRIOR_BYTES_PER_TOKEN))

    def learn(self, model: str, prompt_bytes: int, prompt_tokens: int) -> None:
        """Takes in one response's count of prompt tokens; very short prompts say little and are left out."""
        if prompt_tokens < 16 or prompt_bytes < 16:
            return
        known = self._bytes_per_token.get(model)
        if known is None and len(self._bytes_per_token) >= _MOST_MODELS:
            return
        known = _PRIOR_BYTES_PER_TOKEN if known is None else known
        self._bytes_per_token[model] = known + _WEIGHT * (prompt_bytes / prompt_tokens - known)


class Tokenizer:
    """A tokenizer.json, as Hugging Face's models have it. Counting is thread-safe and releases the GIL."""

    def __init__(self, path: Path) -> None:
        try:
            from tokenizers import Tokenizer as Loaded
        except ImportError as error:
            raise ConfigError("--tokenizer needs the package tokenizers: pip install 'headroom[tokenizer]'") from error
        file = path / "tokenizer.json" if path.is_dir() else path
        try:
            self._tokenizer: Any = Loaded.from_file(str(file))
        except Exception as error:  # The library raises nothing more specific.
            raise ConfigError(f"--tokenizer: can't read {file}: {error}") from error

    def count(self, text: str) -> int:
        return len(self._tokenizer.encode(text, add_special_tokens=False).ids)
