"""An error that repeats is one line in the log, until it changes or the work succeeds."""

import logging

import pytest

from serving.error_log import ErrorLog


def test_an_error_is_logged_once_until_it_changes_or_the_work_succeeds(caplog: pytest.LogCaptureFixture) -> None:
    errors = ErrorLog(logging.getLogger("test"), logging.WARNING)
    for text in ("full", "full", "read-only", "full"):
        errors.failed(OSError(text), "can't write: %s", text)
    assert caplog.messages == ["can't write: full", "can't write: read-only", "can't write: full"]
    assert errors.last == "full"
    assert [errors.succeeded(), errors.succeeded(), errors.last] == [True, False, None]
    errors.failed(OSError("full"), "can't write: %s", "full")
    assert caplog.record_tuples[-1] == ("test", logging.WARNING, "can't write: full")
    assert len(caplog.messages) == 4
