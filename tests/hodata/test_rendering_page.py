"""docs/rendering.md: its snippet runs as it stands there and prints what the page says."""

from __future__ import annotations

import re
from pathlib import Path

import numpy as np
from PIL import Image

PAGE = Path(__file__).parents[2] / "docs" / "rendering.md"


def test_the_snippet_prints_what_the_page_says(tmp_path, monkeypatch, capsys):
    code, printed = re.findall(r"^```(?:python)?\n(.*?)^```", PAGE.read_text(), re.MULTILINE | re.DOTALL)
    monkeypatch.chdir(tmp_path)
    exec(compile(code, str(PAGE), "exec"), {})
    assert capsys.readouterr().out == printed
    assert set(np.unique(np.asarray(Image.open("mask.png")))) == {0, 2, 4}
