"""The notebook runs as it is, and what it prints holds."""

import pathlib
import re

import nbformat
import pytest
from nbclient import NotebookClient

NOTEBOOK = pathlib.Path(__file__).parent.parent / "notebooks" / "quickstart.ipynb"


@pytest.mark.slow  # two models, trained for real
def test_quickstart_notebook(monkeypatch):
    # Trained for real: with the compiler's optimisations.
    monkeypatch.setenv("JAX_DISABLE_MOST_OPTIMIZATIONS", "0")
    notebook = nbformat.read(NOTEBOOK, as_version=4)
    assert not any(cell.get("outputs") for cell in notebook.cells), "stored without outputs"
    NotebookClient(
        notebook, timeout=600, kernel_name="python3", resources={"metadata": {"path": NOTEBOOK.parent}}
    ).execute()
    text = "".join(output.get("text", "") for cell in notebook.cells for output in cell.get("outputs", []))
    assert float(re.search(r"reconstruction: ([\d.]+) dB", text).group(1)) > 18
    found, uniform = re.search(r"codes: ([\d.]+) bits each \(uniform: (\d+)\)", text).groups()
    assert float(found) < 0.8 * float(uniform)
    pictures = [
        o for cell in notebook.cells for o in cell.get("outputs", []) if "image/png" in o.get("data", {})
    ]
    assert len(pictures) == 1
