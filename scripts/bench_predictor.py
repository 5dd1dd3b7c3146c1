#!/usr/bin/env -S sh -c 'exec "$(dirname "$0")/../.venv/bin/python" "$0" "$@"'
"""Measure a prediction server with an external load generator, and compare it with a peer."""

from lab.bench.predictor.__main__ import main

if __name__ == "__main__":
    main()
