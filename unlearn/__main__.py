"""`python -m unlearn`, for where the command isn't on the PATH."""

from unlearn.cli import main

main()
