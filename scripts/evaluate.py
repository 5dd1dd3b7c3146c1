#!/usr/bin/env -S sh -c 'exec "$(dirname "$0")/../.venv/bin/python" "$0" "$@"'
"""Run every routing policy over every workload in virtual time, and write the report."""

from lab.evaluation.__main__ import main

if __name__ == "__main__":
    main()
