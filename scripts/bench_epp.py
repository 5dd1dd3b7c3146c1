#!/usr/bin/env -S sh -c 'exec "$(dirname "$0")/../.venv/bin/python" "$0" "$@"'
"""Measure the endpoint picker: decisions, ext_proc, chunks, scraping, behind Envoy, and compared with a peer."""

from lab.bench.epp.__main__ import main

if __name__ == "__main__":
    main()
