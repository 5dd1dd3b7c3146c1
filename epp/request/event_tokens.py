"""Learn how many tokens an event of an endpoint's streams has, from the usage at the streams' ends.

Speculative decoding and a server's stream interval put several tokens into an event. The usage of a stream comes with
its last event, too late for the pace and the progress of the responses that are under way.
"""

# The estimate moves by this factor at most, so that it follows the median: a parser of tool calls keeps most tokens of
# some responses back, which says nothing of the others' events.
_STEP = 1.05
# Events of a response that tells enough.
_FEWEST_EVENTS = 8
# Limit on the endpoints that are remembered, since addresses come and go.
_MOST_ENDPOINTS = 4096


class EventTokens:
    """The tokens of an event for each endpoint, by its address; 1 for an endpoint that has told nothing yet."""

    def __init__(self) -> None:
        self._by_address: dict[str, float] = {}

    def of(self, address: str) -> float:
        return self._by_address.get(address, 1.0)

    def learn(self, address: str, tokens: int, events: int) -> None:
        """Take in the tokens and events of a response that has ended."""
        if events < _FEWEST_EVENTS:
            return
        known, seen = self.of(address), tokens / events
        if seen == known:
            return
        if address not in self._by_address and len(self._by_address) >= _MOST_ENDPOINTS:
            self._by_address.clear()
        self._by_address[address] = min(max(seen, known / _STEP), known * _STEP)
