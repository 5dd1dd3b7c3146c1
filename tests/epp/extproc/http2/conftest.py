import pytest


@pytest.fixture(autouse=True)
def endless_turns(monkeypatch: pytest.MonkeyPatch) -> None:
    """Let all frames be handled in the turn in which they come, however slow the machine is: the clock stands still."""
    monkeypatch.setattr("epp.extproc.http2.turns.monotonic", lambda: 0.0)
