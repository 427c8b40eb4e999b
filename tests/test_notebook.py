"""The notebook runs from its first cell to its last, in a folder of its own."""

from pathlib import Path

import nbformat
import pytest
from nbclient import NotebookClient

ROOT = Path(__file__).parents[1]


def test_the_notebook_runs_and_shows_progress_bars(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PYTHONPATH", str(ROOT))
    notebook = nbformat.read(ROOT / "docs" / "notebook.ipynb", as_version=4)
    NotebookClient(notebook, timeout=500, resources={"metadata": {"path": str(tmp_path)}}).execute()
    outputs = [output for cell in notebook.cells if cell.cell_type == "code" for output in cell.outputs]
    pages = "".join(output["data"].get("text/html", "") for output in outputs if "data" in output)
    assert '<progress value="1.0000" max="1"></progress> 300 of 300 steps' in pages
    text = "".join(output.get("text", "") for output in outputs)
    assert "original" in text
    assert (tmp_path / "audit" / "audit.json").is_file()
