"""`python -m unlearn`, for where the command isn't on the PATH."""

import sys

if not getattr(sys.flags, "safe_path", False):  # Python 3.11 has the flag
    del sys.path[0]  # the working folder, which `-m` puts first: files from elsewhere may lie there

from unlearn.commands.main import main

main()
