#!/usr/bin/env -S sh -c 'exec "$(dirname "$0")/../.venv/bin/python" "$0" "$@"'
"""Compare policies in front of real vLLM servers."""

from lab.engines.policies.__main__ import main

if __name__ == "__main__":
    main()
