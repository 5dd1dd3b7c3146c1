#!/usr/bin/env -S sh -c 'exec "$(dirname "$0")/../.venv/bin/python" "$0" "$@"'
"""Measure a training server: ingestion, answers during a fit, passes, freshness, accuracy."""

from lab.bench.trainer.__main__ import main

if __name__ == "__main__":
    main()
