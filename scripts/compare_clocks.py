#!/usr/bin/env -S sh -c 'exec "$(dirname "$0")/../.venv/bin/python" "$0" "$@"'
"""Run the same requests in virtual time and through a real Envoy, and compare."""

from lab.clocks.__main__ import main

if __name__ == "__main__":
    main()
