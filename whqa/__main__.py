"""`python -m whqa ...` is `whqa ...`."""

from whqa.cli import main

main()
