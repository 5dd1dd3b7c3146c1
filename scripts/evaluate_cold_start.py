#!/usr/bin/env -S sh -c 'exec "$(dirname "$0")/../.venv/bin/python" "$0" "$@"'
"""Show how soon predictions are used and good after a start."""

from lab.cold_start.__main__ import main

if __name__ == "__main__":
    main()
