"""The example notebook runs from top to bottom, with the settings of its own cell made short."""

from pathlib import Path
from typing import Any

import pytest

NOTEBOOK = Path(__file__).parents[1] / "examples" / "pokegan.ipynb"
SHORT = """
DATA = {data!r}
RECIPE = "house-dcgan"
SIZE = 16
KIMG = 0.2
CHANGES = {{
    "training.batch": 8,
    "latent.size": 8,
    "generator.options": {{"channels": [16, 8]}},
    "discriminator.options": {{"channels": [8, 16]}},
}}
"""
MOST_BYTES = 1_500_000


def read() -> Any:
    nbformat = pytest.importorskip("nbformat", reason="nbformat is not installed")
    return nbformat.read(NOTEBOOK, as_version=4)


def test_it_runs_from_top_to_bottom(
    tmp_path: Path, packed_folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    nbclient = pytest.importorskip("nbclient", reason="nbclient is not installed")
    pytest.importorskip("ipykernel", reason="ipykernel is not installed")
    monkeypatch.setenv("PYTHONPATH", str(NOTEBOOK.parents[1]))
    notebook = read()
    (settings,) = (cell for cell in notebook.cells if "parameters" in cell.metadata.get("tags", ()))
    settings.source = SHORT.format(data=str(packed_folder))
    nbclient.NotebookClient(
        notebook, timeout=120, resources={"metadata": {"path": str(tmp_path)}}
    ).execute()
    pictures = [
        output
        for cell in notebook.cells
        for output in cell.get("outputs", ())
        if any(kind.startswith("image/") for kind in output.get("data", {}))
    ]
    assert len(pictures) == 8
    (work,) = tmp_path.iterdir()  # all that it writes is in one folder beside it
    assert (work / "run" / "report.html").exists()
    assert (work / "generator" / "README.md").exists()


def test_it_is_kept_with_small_outputs_and_no_place_of_its_maker() -> None:
    text = NOTEBOOK.read_text(encoding="utf-8")
    assert len(text.encode()) < MOST_BYTES
    notebook = read()
    code = [cell for cell in notebook.cells if cell.cell_type == "code"]
    assert sum(bool(cell.outputs) for cell in code) >= 8
    assert [cell.execution_count for cell in code] == list(range(1, len(code) + 1))
    assert not any(output.output_type == "error" for cell in code for output in cell.outputs)
    for place in ("/content", "/root", "/home/", "drive.mount"):
        assert place not in text
