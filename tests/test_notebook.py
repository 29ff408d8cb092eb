"""The notebook runs as it is, in an environment that its own first cell makes, and what it prints holds."""

import json
import pathlib
import re
import subprocess
import sys

import nbformat
import pytest
from nbclient import NotebookClient

NOTEBOOK = pathlib.Path(__file__).parent.parent / "notebooks" / "quickstart.ipynb"


@pytest.fixture
def kernel(tmp_path, monkeypatch):
    """The name of a kernel in a fresh environment that has nothing but pip and what a kernel is."""
    subprocess.run([sys.executable, "-m", "venv", tmp_path / "fresh"], check=True)
    python = tmp_path / "fresh" / "bin" / "python"
    subprocess.run([python, "-m", "pip", "install", "-q", "ipykernel"], check=True)
    folder = tmp_path / "kernels" / "fresh"
    folder.mkdir(parents=True)
    argv = [str(python), "-m", "ipykernel_launcher", "-f", "{connection_file}"]
    (folder / "kernel.json").write_text(json.dumps(dict(argv=argv, display_name="fresh", language="python")))
    monkeypatch.setenv("JUPYTER_PATH", str(tmp_path))
    monkeypatch.delenv("PYTHONPATH", raising=False)
    # Trained for real: with the compiler's optimisations.
    monkeypatch.setenv("JAX_DISABLE_MOST_OPTIMIZATIONS", "0")
    return "fresh"


def test_stored_without_outputs():
    notebook = nbformat.read(NOTEBOOK, as_version=4)
    assert not any(cell.get("outputs") for cell in notebook.cells)


@pytest.mark.slow  # an installation, and two models trained for real
def test_quickstart_notebook(kernel):
    notebook = nbformat.read(NOTEBOOK, as_version=4)
    NotebookClient(
        notebook, timeout=900, kernel_name=kernel, resources={"metadata": {"path": NOTEBOOK.parent}}
    ).execute()
    text = "".join(output.get("text", "") for cell in notebook.cells for output in cell.get("outputs", []))
    assert float(re.search(r"reconstruction: ([\d.]+) dB", text).group(1)) > 18
    found, uniform = re.search(r"codes: ([\d.]+) bits each \(uniform: (\d+)\)", text).groups()
    assert float(found) < 0.8 * float(uniform)
    assert "<vargen.Model VAR: images 16x16x1, 30 slots of one of 128 codes, 10 classes" in text
    pictures = [
        o for cell in notebook.cells for o in cell.get("outputs", []) if "image/png" in o.get("data", {})
    ]
    assert (
        len(pictures) == 6
    )  # two curves of the loss, reconstructions, scales, samples by number and by name
