"""`python -m lab.loop.picker`: the endpoint picker, with the evaluation's scorers registered in addition."""

import sys

import lab.evaluation.policies.closed_formula  # noqa: F401  Importing it registers the scorer.
from epp.__main__ import main
from epp.flags import double_dashes

if __name__ == "__main__":
    main(double_dashes(sys.argv[1:]), prog_name="python -m epp")
