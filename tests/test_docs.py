"""The code of the documentation's gallery runs, cell after cell, as a reader would run it."""

from __future__ import annotations

import re
from pathlib import Path

import pytest
import torch

GALLERY = sorted((Path(__file__).parent.parent / "docs" / "gallery").glob("*.md"))
CELL = re.compile(
    r"^```\{code-cell\} python\n(?P<options>(?::[^\n]*\n)*)(?P<code>.*?)^```$", re.M | re.S
)


def test_there_is_a_gallery():
    assert {"swap", "own_cell", "write_a_cell", "language_model"} <= {p.stem for p in GALLERY}


@pytest.mark.parametrize("page", GALLERY, ids=lambda page: page.stem)
def test_page_runs(page, tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    cells = list(CELL.finditer(page.read_text(encoding="utf-8")))
    assert cells
    names: dict = {"__name__": "page"}
    before = torch.get_default_dtype()
    try:
        for number, cell in enumerate(cells):
            code = compile(cell["code"], f"{page.name}, cell {number + 1}", "exec")
            if "raises-exception" in cell["options"]:
                with pytest.raises(ValueError, match="branch depends on data"):
                    exec(code, names)
            else:
                exec(code, names)
    finally:
        torch.set_default_dtype(before)
