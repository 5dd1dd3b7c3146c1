"""An estimate of a prompt's length in tokens, calibrated by what model servers report."""

_PRIOR_BYTES_PER_TOKEN = 4.0
_WEIGHT = 0.02


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
        known = self._bytes_per_token.get(model, _PRIOR_BYTES_PER_TOKEN)
        self._bytes_per_token[model] = known + _WEIGHT * (prompt_bytes / prompt_tokens - known)
