"""The notebook runs, in an environment to which its own first cell adds vargen, and what it prints holds."""

import json
import pathlib
import re
import subprocess
import sys
import sysconfig

import nbformat
import pytest
from nbclient import NotebookClient

NOTEBOOK = pathlib.Path(__file__).parent.parent / "docs" / "notebooks" / "quickstart.ipynb"


@pytest.fixture
def kernel(tmp_path, monkeypatch):
    """The name of a kernel in a fresh environment, which sees the packages of this one, but not vargen."""
    subprocess.run([sys.executable, "-m", "venv", tmp_path / "fresh"], check=True)
    (packages,) = (tmp_path / "fresh").glob("lib/python*/site-packages")
    # Of a folder that is named so, the files are not read that put a clone of vargen on the path.
    (packages / "others.pth").write_text(sysconfig.get_path("purelib") + "\n")
    python = tmp_path / "fresh" / "bin" / "python"
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


@pytest.mark.slow  # two models are trained for real
def test_quickstart_notebook(kernel):
    """With a third of the steps, which is enough for what is asserted."""
    notebook = nbformat.read(NOTEBOOK, as_version=4)
    lengths = []
    for cell in notebook.cells:
        lengths += re.findall(r"\bsteps=\d+", cell.source)
        cell.source = re.sub(r"\bsteps=(\d+)", lambda found: f"steps={int(found[1]) // 3}", cell.source)
    assert lengths == ["steps=600", "steps=300"]
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
