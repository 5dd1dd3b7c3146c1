#!/usr/bin/env -S sh -c 'exec "$(dirname "$0")/../.venv/bin/python" "$0" "$@"'
"""Let other projects' load generators judge the loop."""

from lab.judges.__main__ import main

if __name__ == "__main__":
    main()
