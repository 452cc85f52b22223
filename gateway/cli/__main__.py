"""`python -m gateway.cli` is `neurogate`."""

from gateway.cli import main

main()
