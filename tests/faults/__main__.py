"""`python -m tests.faults [--report] [--only ID ...] [--seed N]`: see `tests/faults/report.py`."""

from tests.faults.report import main

if __name__ == "__main__":
    raise SystemExit(main())
