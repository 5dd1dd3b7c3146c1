"""h2spec, changed so that its requests are gRPC's, and what it says of a server."""

import asyncio
from pathlib import Path
from typing import Final

from tests.go_programs import GoProgram, Replacement

_FIELDS: Final = "for _, hf := range headers {"
_GRPC_FIELDS: Final = """headers = append(headers[:len(headers):len(headers)],
		HeaderField("content-type", "application/grpc"), HeaderField("te", "trailers"))
	for _, hf := range headers {"""
H2SPEC: Final = GoProgram(
    Path(__file__).parent / "h2spec",
    "github.com/summerwind/h2spec",
    packages=200,
    replacements=(
        Replacement("github.com/summerwind/h2spec/spec/util.go", '":method", "GET"', '":method", "POST"'),
        # Behind all fields of a case: some cases add a wrong pseudo-header, which must stay before other fields.
        Replacement("github.com/summerwind/h2spec/spec/connection.go", _FIELDS, _GRPC_FIELDS),
    ),
)
# The time in which the server must answer. No case that passes waits for its end.
_PATIENCE: Final = "20s"
# Cases at a time. Most of them wait for the server.
_PARALLEL: Final = 32


async def results(program: Path, port: int, path: str) -> dict[str, str]:
    """Run all cases against a port of 127.0.0.1. Return the result of each case, by its number.

    The path's method must answer an empty request with some bytes.
    """
    command = [str(program), "-port", str(port), "-path", path, "-timeout", _PATIENCE, "-parallel", str(_PARALLEL)]
    process = await asyncio.create_subprocess_exec(*command, stdout=asyncio.subprocess.PIPE)
    output, _ = await process.communicate()
    assert process.returncode == 0
    return dict(line.split("\t")[:2] for line in output.decode().splitlines())
