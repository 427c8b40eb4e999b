"""`python -m unlearn`, for where the command isn't on the PATH."""

from unlearn.commands.main import main

main()
