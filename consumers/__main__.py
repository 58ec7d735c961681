"""`python -m consumers` is `driftline`."""

from consumers.cli import main

if __name__ == "__main__":
    main()
