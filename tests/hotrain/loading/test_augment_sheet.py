"""The sheet of `--preview-augment`: what it shows is what the run sees."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from click.testing import CliRunner
from drawn_shards import Spec
from PIL import Image

from hodata.labels import TASKS, Label
from hotrain.cli import cli
from hotrain.config import FitConfig
from hotrain.learning.selection import select
from hotrain.loading.augment_sheet import _seen, augment_sheet
from hotrain.loading.loader import Loader
from hotrain.loading.training_data import training_data


@pytest.fixture
def folder(shards: Callable[..., Path]) -> Path:
    ego = Spec("ego", samples=6, meaning="egohos", hand=Label.LEFT_HAND, item=Label.OBJECT_LEFT)
    return shards(ego, Spec("wrist", samples=5, meaning="hand-wrist", size=(40, 40), item=Label.BACKGROUND))


def options(folder: Path, **changes: float) -> FitConfig:
    return FitConfig((str(folder),), "nowhere", crop=32, batch_size=4, seed=3, **changes)  # type: ignore[arg-type]


def test_it_shows_the_crops_of_the_run(folder: Path) -> None:
    """Rows, crops and labels against the run's own loader, over the first epochs; without changes of colour."""
    config = options(folder, paste=0.5, background=0.4, noise=0.4, jitter=0.0)
    selection = select(config, TASKS["hand"])
    data = training_data(config, selection)
    loader = Loader(data, start=0, stop=64, batch=4, micro=4, workers=0)
    run = {int(p): (batch, n) for batch in loader for n, p in enumerate(batch["position"])}
    for row in selection.train_rows.tolist():
        expected = [(p, *found) for p, found in sorted(run.items()) if int(found[0]["row"][found[1]]) == row][:5]
        seen = _seen(selection, data, config, row)
        assert len(expected) == 5
        for (image, label, caption), (position, batch, n) in zip(seen, expected, strict=True):
            assert caption.startswith(f"{position:,}")
            np.testing.assert_array_equal(label, batch["label"][n])
            assert np.abs(image.astype(int) - batch["image"][n].permute(1, 2, 0).numpy()).max() <= 1


def test_captions_say_what_was_done(folder: Path) -> None:
    everything = options(folder, blur=1, noise=1, jpeg=1, paste=1)
    selection = select(everything, TASKS["hand"])
    captions = [caption for *_, caption in _seen(selection, training_data(everything, selection), everything, 0)]
    assert all("noise" in text and "jpeg" in text and ("blur" in text or "motion" in text) for text in captions)
    assert any("paste" in text for text in captions)
    plain = options(folder)
    crops = _seen(selection, training_data(plain, selection), plain, 0)
    assert all(caption.replace(",", "").isdigit() for *_, caption in crops)


def test_the_command_draws_and_ends(folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    out = tmp_path / "sheet.png"
    arguments = ["fit", "--shards", str(folder), "--crop", "32", "--paste", "0.5", "--no-flip"]
    result = CliRunner().invoke(cli, [*arguments, "--preview-augment", str(out)])
    assert result.exit_code == 0, result.output
    assert result.stdout.split() == [str(out)] and not (tmp_path / "runs").exists()
    with Image.open(out) as found:
        assert found.size == augment_sheet(options(folder)).size
        assert len(found.getcolors(1 << 24)) > 500  # type: ignore[arg-type]
