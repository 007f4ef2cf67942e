"""`python -m edgeos`: the command line."""

from edgeos.cli import main

main()
