"""Fixtures of small shards."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest
from drawn_shards import Spec, write

from hodata.labels import Label
from hodata.shards.reader import ShardIndex


@pytest.fixture
def shards(tmp_path: Path) -> Callable[..., Path]:
    """Writes specs into a fresh folder and returns it."""
    return lambda *specs, meanings=(): write(tmp_path / "shards", specs, meanings)


@pytest.fixture
def opened(shards: Callable[..., Path]) -> Callable[..., ShardIndex]:
    """Writes specs and opens the shards."""
    return lambda *specs, meanings=(): ShardIndex.open(shards(*specs, meanings=meanings))


@pytest.fixture(scope="session")
def mixed(tmp_path_factory: pytest.TempPathFactory) -> ShardIndex:
    """Three sources of different sizes, meanings and splits, read only."""
    folder = write(
        tmp_path_factory.mktemp("mixed"),
        (
            Spec("ego", samples=11, meaning="egohos", hand=Label.LEFT_HAND, item=Label.OBJECT_LEFT),
            Spec("wrist", samples=7, meaning="hand-wrist", size=(40, 40), item=Label.BACKGROUND, kind="png"),
            Spec("ego", "val", 5, "egohos", hand=Label.RIGHT_HAND, item=Label.OBJECT_RIGHT),
            Spec("wrist", "val", 4, "hand-wrist", size=(40, 40), item=Label.BACKGROUND, kind="png"),
            Spec("ego", "test", 4, "egohos", hand=Label.RIGHT_HAND, item=Label.OBJECT_RIGHT),
            Spec("wrist", "test", 3, "hand-wrist", size=(40, 40), item=Label.BACKGROUND, kind="png"),
        ),
    )
    return ShardIndex.open(folder)
