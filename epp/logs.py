"""Log output: text for people, or one JSON object per line."""

import logging
from datetime import UTC, datetime

import msgspec

from epp.exceptions import ConfigError

_LEVELS = {"debug": logging.DEBUG, "info": logging.INFO, "error": logging.ERROR, "panic": logging.CRITICAL}
# The Go pickers log debug lines from this verbosity on.
_DEBUG_VERBOSITY = 4


class JsonFormatter(logging.Formatter):
    """One JSON object per record, with the Go pickers' fields: ts, level, logger, msg and stacktrace."""

    def format(self, record: logging.LogRecord) -> str:
        line = {
            "ts": datetime.fromtimestamp(record.created, UTC).isoformat(timespec="milliseconds"),
            "level": record.levelname.lower(),
            "logger": record.name,
            "msg": record.getMessage(),
        }
        if record.exc_info:
            line["stacktrace"] = self.formatException(record.exc_info)
        return msgspec.json.encode(line).decode()


def configure(verbosity: int, encoder: str, level: str) -> None:
    """Set up the root logger. `level` overrides `verbosity`.

    Raise ConfigError when `level` is neither a name nor a number.
    """
    handler = logging.StreamHandler()
    if encoder == "json":
        handler.setFormatter(JsonFormatter())
    else:
        handler.setFormatter(logging.Formatter("%(asctime)s %(levelname)s %(name)s %(message)s"))
    logging.basicConfig(level=_level(verbosity, level), handlers=[handler], force=True)


def _level(verbosity: int, level: str) -> int:
    if level in _LEVELS:
        return _LEVELS[level]
    if level and not level.isdigit():
        raise ConfigError(f"--zap-log-level: expected {', '.join(_LEVELS)} or a number, got {level!r}")
    return logging.DEBUG if int(level or verbosity) >= _DEBUG_VERBOSITY else logging.INFO
