"""`python -m synth`, for where the command isn't on the PATH."""

from synth.commands.main import main

main()
