#!/usr/bin/env -S sh -c 'exec "$(dirname "$0")/../.venv/bin/python" "$0" "$@"'
"""Send the same requests to a real engine and to its calibrated twin, and print how far the twin is off."""

from lab.engines.comparison.__main__ import main

if __name__ == "__main__":
    main()
