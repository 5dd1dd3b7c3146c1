"""The place of a wrong field in a request's body, as clients of llm-d's servers read it."""

import re

_AT = re.compile(r"^(.*) - at `\$\.?(.*)`$", re.DOTALL)
_MISSING = re.compile(r"missing required field `(\w+)`")


def locate(error: Exception) -> tuple[list[str], str]:
    """Return the path to the wrong field, from "body" on, and what is wrong there. `error` is msgspec's."""
    match = _AT.match(str(error))
    message, path = (match[1], match[2]) if match else (str(error), "")
    missing = _MISSING.search(message)
    return ["body", *filter(None, re.split(r"[.\[\]]+", path)), *([missing[1]] if missing else [])], message
