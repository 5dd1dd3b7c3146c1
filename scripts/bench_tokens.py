#!/usr/bin/env -S sh -c 'exec "$(dirname "$0")/../.venv/bin/python" "$0" "$@"'
"""Measure how well the picker estimates prompt tokens without a tokenizer, and how long that takes."""

from lab.bench.tokens.__main__ import main

if __name__ == "__main__":
    main()
