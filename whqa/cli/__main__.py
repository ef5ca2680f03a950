"""`python -m whqa.cli ...` is `whqa ...`."""

from whqa.cli import main

main()
