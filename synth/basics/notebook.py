"""Progress bars in a Jupyter notebook."""

from __future__ import annotations

import html
import sys
from collections.abc import Callable

Show = Callable[[float, str], None]  # a share in [0, 1], and a line for a person


def notebook_bar() -> Show | None:
    """A new bar below the cell that runs now; None outside a notebook."""
    ipython = sys.modules.get("IPython")
    shell = ipython.get_ipython() if ipython else None
    if ipython is None or not hasattr(shell, "kernel"):
        return None
    from IPython.display import HTML, display

    def drawn(share: float, line: str) -> HTML:
        return HTML(f'<progress value="{share:.4f}" max="1"></progress> {html.escape(line)}')

    cell = display(drawn(0, ""), display_id=True)
    return lambda share, line: cell.update(drawn(share, line))
