"""Find a prompt's length in tokens: count by the model's tokenizer, or estimate from the usage that servers report."""

from pathlib import Path
from typing import Any

import numpy as np

from epp.exceptions import ConfigError
from epp.request.text_kinds import BYTES, KINDS, Floats

# Tokens per byte of an unknown model, as is usual for English and code.
_PRIOR_TOKENS_PER_BYTE = 0.25
# Standard deviations of the tokens of one of each kind around the prior, in the order of KINDS. Assumed.
_PRIOR_SIGMA: Floats = np.array([0.1, 0.4, 0.3, 0.4, 0.3, 0.4, 0.3, 0.4, 0.4, 0.6, 0.6, 0.7, 0.9, 1.2, 10.0, 20.0])
# Standard deviation of a prompt's relative error beside the estimate that fits best. Measured: 0.02 to 0.05.
_NOISE = 0.05
_PRIOR: Floats = BYTES * _PRIOR_TOKENS_PER_BYTE
_PRIOR_PRECISION: Floats = np.diag((_NOISE / _PRIOR_SIGMA) ** 2)
# Relative error from which a response counts for less, as what it was charged for may be more than its text.
_PLAUSIBLE_ERROR = 0.3
# Weight of what was learnt before at each further response: some 200 responses count.
_KEPT = 0.995
# Responses of a model after which the estimate is fitted only at every eighth.
_OFTEN_FITTED, _FIT_EVERY = 64, 8
# Most bytes that a token is taken for.
_MOST_BYTES_PER_TOKEN = 16.0
# Prompts of fewer tokens or bytes teach nothing.
_LEAST_LEARNT = 16
# Limit on the models that are remembered, since a client may send any model name.
_MOST_MODELS = 1000


class TokenEstimator:
    """Tokens for each kind of text and model, fitted to the usage that responses carry.

    `counts` are those of text_kinds.count_kinds.
    """

    def __init__(self) -> None:
        self._fits: dict[str, _Fit] = {}

    def estimate(self, model: str, counts: Floats) -> int:
        """Return a prompt's tokens; 0 for an empty prompt."""
        size = float(counts @ BYTES)
        if not size:
            return 0
        fit = self._fits.get(model)
        tokens = size * _PRIOR_TOKENS_PER_BYTE if fit is None else float(counts @ fit.tokens_per_kind)
        return round(max(tokens, size / _MOST_BYTES_PER_TOKEN, 1.0))

    def learn(self, model: str, counts: Floats, prompt_tokens: int) -> None:
        """Learn from one response's count of prompt tokens; prompts under 16 tokens or bytes are ignored."""
        if prompt_tokens < _LEAST_LEARNT or counts @ BYTES < _LEAST_LEARNT:
            return
        fit = self._fits.get(model)
        if fit is None:
            if len(self._fits) >= _MOST_MODELS:
                return
            fit = self._fits[model] = _Fit()
        fit.add(counts, prompt_tokens)


class _Fit:
    """A linear fit of one model's tokens to counts, in relative errors. The prior stands where nothing was learnt."""

    __slots__ = ("_moments", "_responses", "_sums", "tokens_per_kind")

    def __init__(self) -> None:
        self.tokens_per_kind = _PRIOR
        self._moments: Floats = np.zeros((len(KINDS), len(KINDS)))
        self._sums: Floats = np.zeros(len(KINDS))
        self._responses = 0

    def add(self, counts: Floats, tokens: int) -> None:
        relative = counts / tokens
        error = abs(float(relative @ self.tokens_per_kind) - 1.0)
        weight = min(_PLAUSIBLE_ERROR / error, 1.0) if error else 1.0
        self._moments *= _KEPT
        self._moments += np.outer(weight * relative, relative)
        self._sums *= _KEPT
        self._sums += (weight * (1.0 - float(relative @ _PRIOR))) * relative
        self._responses += 1
        if self._responses <= _OFTEN_FITTED or self._responses % _FIT_EVERY == 0:
            self.tokens_per_kind = _PRIOR + np.linalg.solve(self._moments + _PRIOR_PRECISION, self._sums)


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
