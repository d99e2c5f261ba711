"""docs/rendering.md: its snippets run as they stand there and print what the page says."""

from __future__ import annotations

import re
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from hodata.synth.miniatures import write_miniatures

PAGE = Path(__file__).parents[2] / "docs" / "rendering.md"


def test_the_snippets_run_and_print_what_the_page_says(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    text = PAGE.read_text()
    meshes, mano = re.findall(r"^```python\n(.*?)^```", text, re.MULTILINE | re.DOTALL)
    printed = re.findall(r"^```\n(label.*?)^```", text, re.MULTILINE | re.DOTALL)
    monkeypatch.chdir(tmp_path)
    exec(compile(meshes, str(PAGE), "exec"), {})
    assert [capsys.readouterr().out] == printed
    assert set(np.unique(np.asarray(Image.open("mask.png")))) == {0, 2, 4}
    write_miniatures(tmp_path, ("mano", "ycb"))
    exec(compile(mano, str(PAGE), "exec"), {})
    assert capsys.readouterr().out == "(5, 21, 3) (778, 3) True\n"
