"""`python -m weighin`: the command line."""

from weighin.cli import main

main()
