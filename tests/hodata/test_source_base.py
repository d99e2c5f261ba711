"""What all sources do alike: refuse another folder in the words of their own detection, and keep one kind of image."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from hodata.errors import SourceError
from hodata.sample import Record
from hodata.sources import SOURCE_NAMES, source_class
from hodata.sources.base import LeftOut, Scan, Source
from hodata.sources.pairs import keep_one_kind


@pytest.mark.parametrize("name", SOURCE_NAMES)
def test_another_folder_is_refused_by_every_source(name: str, tmp_path: Path) -> None:
    kind = source_class(name)
    reason = kind.detect(tmp_path).reason
    with pytest.raises(SourceError) as error:
        kind(tmp_path)
    assert str(error.value) == f"{tmp_path}: is not {kind.title}: {reason}" and reason
    # Said by what all have in common: a class that forgets it is not taken for one that looked.
    with pytest.raises(SourceError, match="is not"):
        Source.__init__(object.__new__(kind), tmp_path)


def test_the_files_of_coco_are_looked_for_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from hodata.sources import coco

    (tmp_path / "annotations").mkdir()
    empty = {"images": [], "annotations": [], "categories": []}
    for name in ("a.json", "annotations/b.json"):
        (tmp_path / name).write_text(json.dumps(empty))
    (tmp_path / "labels.toml").write_text(
        'name = "mine"\ngroup = "each"\nmeaning = "exact"\n[categories]\nhand = "hand"\n'
    )
    looked: list[str] = []
    monkeypatch.setattr(coco, "looks_like_coco", lambda path: looked.append(path.name) or True)
    source = coco.Coco(tmp_path)
    assert looked == ["a.json", "b.json"]
    assert source.files == [tmp_path / "a.json", tmp_path / "annotations" / "b.json"]


@pytest.mark.parametrize(
    ("images", "kept"),
    [("a.jpg b.png", "a.jpg"), ("a.jpg b.png c.PNG", "b.png c.PNG"), ("a.jpeg b.jpg", "a.jpeg b.jpg"), ("", "")],
)
def test_the_rarer_kind_is_left_out(images: str, kept: str) -> None:
    scan = Scan([Record(name, "g", "", name) for name in images.split()], [LeftOut("z", "is damaged")])
    keep_one_kind(scan)
    assert [record.image for record in scan.records] == kept.split()
    out = [name for name in images.split() if name not in kept.split()]
    assert [item.what for item in scan.left_out] == [*out, "z"]
