#!/usr/bin/env -S sh -c 'exec "$(dirname "$0")/../.venv/bin/python" "$0" "$@"'
"""Make, check and compare the simulator's calibration files."""

from lab.calibration.__main__ import main

if __name__ == "__main__":
    main()
