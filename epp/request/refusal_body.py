"""Write the answer to a client whose request the picker refuses: JSON as OpenAI's clients expect it, or text."""

from typing import NamedTuple

import msgspec

from epp.exceptions import RequestError
from epp.request import openai

# The types that vLLM gives the errors of a status. Clients of other servers know them too.
_TYPES = {
    400: "BadRequestError",
    413: "PayloadTooLargeError",
    429: "RateLimitError",
    500: "InternalServerError",
    503: "ServiceUnavailableError",
}


class RefusalBody(NamedTuple):
    content_type: str
    text: str


def refusal_body(error: RequestError, path: str) -> RefusalBody:
    """Return the body of a refusal: JSON for paths of the OpenAI API, else the error's text."""
    text = str(error)
    if not (path and (openai.is_read(path) or path.startswith(openai.API_PREFIX))):
        return RefusalBody("text/plain", text)
    fields = {"message": text, "type": _TYPES.get(error.status, error.code), "param": None, "code": error.status}
    return RefusalBody("application/json", msgspec.json.encode({"error": fields}).decode())
