"""`python -m synth`, for where the command isn't on the PATH."""

from synth.cli import main

main()
