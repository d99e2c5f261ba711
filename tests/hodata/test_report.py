"""Tables, pictures and the page, over shards built from a folder with hostile names."""

from __future__ import annotations

import base64
import io
import json
import re
from collections.abc import Callable
from html.parser import HTMLParser
from pathlib import Path

import numpy as np
import pytest
from numpy.typing import NDArray
from PIL import Image
from rich.console import Console

from hodata.build import BuildOptions, build
from hodata.errors import HodataError
from hodata.labels import COLORS, Label
from hodata.report import (
    Tile,
    contact_sheet,
    grid,
    html_page,
    inspect_summary,
    inspect_tables,
    overlay,
    save_png,
    spread_rows,
)
from hodata.report.draw import decode_image, fitted, legend_of, overlay_layer
from hodata.shards.reader import ShardIndex
from hodata.sources.folder import Folder

HOSTILE = "<script>alert(1)</script>&\"'[bold]\x1b[31m"
RECORDINGS = 12
FRAMES = 4


def write_source(root: Path, name: str, ids: dict[int, str], size: tuple[int, int], recording: str) -> Folder:
    """Masks of which the value of every pixel is known: frame f draws rows below f+1 as 1 and column 0 as 2."""
    (root / "images").mkdir(parents=True)
    (root / "masks").mkdir()
    random = np.random.Generator(np.random.Philox(len(name)))
    for group in range(RECORDINGS):
        for frame in range(FRAMES):
            stem = f"{recording}{group}_{frame}"
            pixels = random.integers(0, 255, (size[1], size[0], 3), np.uint8)
            Image.fromarray(pixels).save(root / "images" / f"{stem}.jpg")
            mask = np.zeros((size[1], size[0]), dtype=np.uint8)
            mask[: frame + 1] = 1
            mask[:, 0] = 2
            Image.fromarray(mask).save(root / "masks" / f"{stem}.png")
    lines = "\n".join(f'{value} = "{label}"' for value, label in ids.items())
    (root / "labels.toml").write_text(
        f'name = "{name}"\ngroup = \'^(.*)_\'\nmeaning = "hand-arm"\nlicence = "own"\n[ids]\n{lines}\n',
    )
    return Folder(root)


@pytest.fixture(scope="module")
def index(tmp_path_factory: pytest.TempPathFactory) -> ShardIndex:
    root = tmp_path_factory.mktemp("report")
    out = root / "shards"
    one = write_source(root / "one", "one", {0: "background", 1: "hand", 2: "void"}, (32, 24), "a")
    recording = HOSTILE.replace("/", "-")
    two = write_source(root / "two", "two", {0: "background", 1: "left_hand", 2: "object"}, (30, 40), recording)
    for source in (one, two):
        build(source, out, BuildOptions(name=source.default_name, samples_per_shard=10))
    return ShardIndex.open([out])


def test_the_summary_counts_what_the_masks_hold(index: ShardIndex) -> None:
    summary = inspect_summary(index)
    assert json.loads(json.dumps(summary)) == summary
    reader = index.reader()
    masks = [reader.mask(row) for row in range(len(index))]
    for label in Label:
        pixels = sum(int((mask == label).sum()) for mask in masks)
        samples = sum(bool((mask == label).any()) for mask in masks)
        expected = {"pixels": pixels, "samples": samples} if pixels else None
        assert summary["labels"].get(label.label_name) == expected
    assert summary["samples"] == 2 * RECORDINGS * FRAMES
    assert summary["groups"] == 2 * RECORDINGS
    assert summary["shards"] == len(index.shards)
    assert summary["bytes"] == sum(path.stat().st_size for path in index.shards)


def test_the_summary_of_each_source(index: ShardIndex) -> None:
    summary = inspect_summary(index)
    for name, size in (("one", "32x24"), ("two", "30x40")):
        source = summary["sources"][name]
        assert source["samples"] == RECORDINGS * FRAMES
        assert source["image_sizes"] == {size: RECORDINGS * FRAMES}
        assert source["meanings"] == {"hand-arm": RECORDINGS * FRAMES}
        assert source["bytes"] == sum(path.stat().st_size for path in index.shards if path.name.startswith(name))
        assert source["licence"] == "own"
        assert source["complete"]
    for split, counts in summary["splits"].items():
        rows = index.select(split=split)
        assert counts == {"samples": len(rows), "groups": len(set(index.column("group")[rows]))}
    both = summary["sources"].values()
    assert sum(source["splits"]["train"]["samples"] for source in both) == summary["splits"]["train"]["samples"]


def test_tables_show_the_counts_and_no_control_characters(index: ShardIndex) -> None:
    console = Console(width=160, record=True, file=io.StringIO())
    summary = inspect_summary(index)
    summary["sources"][f"three{HOSTILE}"] = summary["sources"].pop("two")
    for table in inspect_tables(summary):
        console.print(table)
    text = console.export_text()
    assert "\x1b" not in text
    assert "[bold]" in text  # shown as it is, not obeyed
    assert re.search(r"left_hand +- +6\.\d\d %  100 %", text)  # rows 1..4 of 40, on average 2.5, less column 0
    share = 2.5 / 40 * 29 / 30
    assert f"{100 * share:.2f} %" in text
    assert re.search(rf"one +{RECORDINGS * FRAMES} +{RECORDINGS} ", text)


def test_an_unfinished_build_is_marked(index: ShardIndex) -> None:
    summary = inspect_summary(index)
    summary["sources"]["one"]["complete"] = False
    console = Console(width=160, record=True, file=io.StringIO())
    console.print(inspect_tables(summary)[0])
    assert "one (not complete)" in console.export_text()


@pytest.mark.parametrize("count", [1, 6, 24, 1000])
def test_shown_samples_are_spread_evenly(index: ShardIndex, count: int) -> None:
    rows = spread_rows(index, count)
    assert len(rows) == len(set(rows.tolist())) == min(count, len(index))
    strata = [(index.column("source")[row], index.column("split")[row]) for row in rows]
    counts = {stratum: strata.count(stratum) for stratum in strata}
    if count == 6:
        assert set(counts.values()) == {1}  # 2 sources x train, val, test
    if count == 24:
        train = [row for row, stratum in zip(rows, strata, strict=True) if stratum == ("one", "train")]
        assert len({index.column("group")[row] for row in train}) == len(train)


def test_the_choice_depends_on_names_only(index: ShardIndex, tmp_path: Path) -> None:
    source = write_source(tmp_path / "one", "one", {0: "background", 1: "hand", 2: "void"}, (32, 24), "a")
    build(source, tmp_path / "out", BuildOptions(name="one", samples_per_shard=3))
    other = ShardIndex.open([tmp_path / "out"])
    ours = spread_rows(index, 9, index.select(source="one"))
    theirs = spread_rows(other, 9)
    assert index.column("key")[ours].tolist() == other.column("key")[theirs].tolist()


def slow_overlay(image: NDArray[np.uint8], mask: NDArray[np.uint8], alpha: float) -> NDArray[np.float64]:
    """Pixel by pixel: outlined labels in full colour, a dark rim round them, a tint inside."""
    result = image.astype(np.float64)
    height, width = mask.shape
    for y in range(height):
        for x in range(width):
            near = [(y - 1, x), (y + 1, x), (y, x - 1), (y, x + 1)]
            border = any(0 <= j < height and 0 <= i < width and mask[j, i] != mask[y, x] for j, i in near)
            label = Label(mask[y, x])
            color = np.array(COLORS[label], dtype=np.float64)
            if label is Label.BACKGROUND:
                strength, color = (140 / 255 if border else 0.0), np.zeros(3)
            elif border:
                strength = 1.0
            elif label is Label.VOID:
                strength = (200 if (x + y) % 6 < 3 else 90) / 255
            else:
                strength = alpha
            result[y, x] = image[y, x] * (1 - strength) + color * strength
    return result


def test_the_overlay_against_a_slow_twin() -> None:
    random = np.random.Generator(np.random.Philox(4))
    image = random.integers(0, 255, (20, 26, 3), np.uint8)
    mask = np.zeros((20, 26), dtype=np.uint8)
    mask[3:12, 4:15], mask[8:17, 10:22], mask[14:, :9] = Label.HAND, Label.OBJECT, Label.VOID
    before = image.copy()
    drawn = overlay(image, mask, alpha=0.4)
    assert np.abs(drawn - slow_overlay(image, mask, 0.4)).max() <= 1.0
    assert (image == before).all()
    assert (overlay(image, np.zeros_like(mask)) == image).all()


def test_class_colours_and_thickness() -> None:
    mask = np.zeros((30, 30), dtype=np.uint8)
    mask[10:20, 10:20] = 2
    colors = np.zeros((256, 3), dtype=np.uint8)
    colors[2] = (1, 2, 3)
    layer = overlay_layer(mask, colors=colors, outline=3)
    assert (layer[mask == 2, :3] == (1, 2, 3)).all()
    assert np.count_nonzero(layer[mask == 2, 3] == 255) == 100 - 4 * 4
    assert not overlay_layer(mask, outline=0)[mask == 0].any()


def test_sizes_that_differ_are_refused() -> None:
    with pytest.raises(ValueError, match="differ in size"):
        overlay(np.zeros((4, 5, 3), np.uint8), np.zeros((5, 4), np.uint8))


@pytest.mark.parametrize(
    ("size", "box", "expected"),
    [((640, 480), (320, 320), (320, 240)), ((20, 10), (100, 100), (20, 10)), ((1000, 1), (10, 10), (10, 1))],
)
def test_fitted(size: tuple[int, int], box: tuple[int, int], expected: tuple[int, int]) -> None:
    assert fitted(size, box) == expected


def test_a_grid_holds_its_pictures_in_their_places() -> None:
    red, blue = (np.full((20, 30, 3), color, np.uint8) for color in ((200, 0, 0), (0, 0, 200)))
    picture = grid(
        ["heading", [Tile(red, ("one", "two")), Tile(blue, (HOSTILE * 20,))], [Tile(blue)]],
        box=(40, 30),
        title="A title that is far too long for so small a picture",
        columns=("image", "truth"),
        legend=legend_of([Label.BACKGROUND, Label.HAND, Label.VOID]),
    )
    is_red, is_blue = ((picture == color).all(axis=2) for color in ((200, 0, 0), (0, 0, 200)))
    assert np.count_nonzero(is_red) == 600
    assert np.count_nonzero(is_blue) == 1200
    red_columns, blue_columns = np.flatnonzero(is_red.any(0)), np.flatnonzero(is_blue.any(0))
    assert red_columns[0] == 20 + 5
    assert np.diff(red_columns).max() == 1
    assert blue_columns[0] == red_columns[0]  # the second row starts at the left again
    assert (picture == COLORS[Label.HAND]).all(axis=2).any()


def test_the_contact_sheet_shows_the_chosen_samples(index: ShardIndex, tmp_path: Path) -> None:
    path = tmp_path / "deep" / "sheet.png"
    rows = contact_sheet(index, None, path, count=12, width=80)
    assert rows.tolist() == spread_rows(index, 12).tolist()
    picture = np.asarray(Image.open(path))
    for label in (Label.HAND, Label.LEFT_HAND, Label.OBJECT):
        assert np.count_nonzero((picture == COLORS[label]).all(axis=2)) > 20
    again = tmp_path / "again.png"
    contact_sheet(index, None, again, count=12, width=80)
    assert again.read_bytes() == path.read_bytes()
    only = contact_sheet(index, index.select(source="two"), again, count=4, width=80)
    assert set(index.column("source")[only]) == {"two"}


@pytest.mark.parametrize("write", [lambda index, path: contact_sheet(index, None, path, count=2), html_page])
def test_a_file_that_cannot_be_written_is_named(index: ShardIndex, tmp_path: Path, write: Callable) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(HodataError, match="cannot be written"):
        write(index, tmp_path / "file" / "sheet.png")
    with pytest.raises(HodataError, match="cannot be written"):
        save_png(tmp_path, np.zeros((2, 2, 3), np.uint8))


class Page(HTMLParser):
    """Every tag with its attributes, and the text outside scripts and styles."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.tags: list[tuple[str, dict[str, str]]] = []
        self.text = ""
        self._inside = ""
        self.feed(text)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append((tag, {name: value or "" for name, value in attrs}))
        self._inside = tag

    def handle_data(self, data: str) -> None:
        if self._inside not in ("script", "style"):
            self.text += data

    def all(self, tag: str) -> list[dict[str, str]]:
        return [attributes for name, attributes in self.tags if name == tag]


def page_of(index: ShardIndex, path: Path, **options: int) -> Page:
    html_page(index, path, **options)
    return Page(path.read_text(encoding="utf-8"))


def picture_of(uri: str) -> Image.Image:
    return Image.open(io.BytesIO(base64.b64decode(uri.partition(",")[2])))


def test_the_page_needs_nothing_and_runs_only_its_own_script(index: ShardIndex, tmp_path: Path) -> None:
    page = page_of(index, tmp_path / "page.html", limit=30)
    assert len(page.all("script")) == 1  # hostile names made none
    assert "<script>alert(1)<-script>" in page.text.replace("\x1b", "")
    assert not any(name.startswith("on") for _, attributes in page.tags for name in attributes)
    for _, attributes in page.tags:
        assert attributes.get("src", "data:").startswith("data:")
        assert "href" not in attributes
    policy = next(item["content"] for item in page.all("meta") if "http-equiv" in item)
    assert policy.startswith("default-src 'none'; img-src data:;")
    assert "unsafe-inline'; script-src 'sha256-" in policy


def test_the_policy_admits_the_pages_script(index: ShardIndex, tmp_path: Path) -> None:
    import hashlib

    html_page(index, tmp_path / "page.html", limit=1)
    text = (tmp_path / "page.html").read_text()
    script = re.search(r"<script>(.*?)</script>\n</html>", text, re.DOTALL)
    assert script is not None
    digest = base64.b64encode(hashlib.sha256(script[1].encode()).digest()).decode()
    assert f"script-src 'sha256-{digest}'" in text


def test_every_sample_of_the_page_has_picture_mask_and_words(index: ShardIndex, tmp_path: Path) -> None:
    page = page_of(index, tmp_path / "page.html", limit=30)
    rows = spread_rows(index, 30)
    figures, images = page.all("figure"), page.all("img")
    assert len(figures) == 30
    assert len(images) == 60
    reader = index.reader()
    for place, row in enumerate(rows.tolist()):
        figure, (image, mask) = figures[place], images[2 * place : 2 * place + 2]
        assert figure["tabindex"] == "0"
        assert figure["data-source"] == index.column("source")[row]
        assert figure["data-split"] == index.column("split")[row]
        truth = reader.mask(row)
        names = {Label(value).label_name for value in np.unique(truth)} - {"background"}
        assert set(figure["data-labels"].split()) == names
        assert image["alt"].startswith(index.column("key")[row])
        assert all(name in image["alt"] for name in names)
        assert picture_of(image["src"]).size == (truth.shape[1], truth.shape[0])
        layer = np.asarray(picture_of(mask["src"]))
        drawn = truth != Label.BACKGROUND
        assert (layer[drawn, :3] == np.array([COLORS[Label(v)] for v in truth[drawn]])).all()
        assert (layer[drawn, 3] > 0).all()


def test_the_page_says_how_much_it_shows_and_offers_the_filters(index: ShardIndex, tmp_path: Path) -> None:
    page = page_of(index, tmp_path / "page.html", limit=30)
    assert f"30 of {len(index)} samples are on this page, spread over" in page.text
    options = [item["value"] for item in page.all("option")]
    assert options == ["", "one", "two", "", "train", "val", "test", "", "left_hand", "hand", "object", "void"]
    whole = page_of(index, tmp_path / "page.html")
    assert f"{len(index)} of {len(index)} samples are on this page." in whole.text


def test_pictures_are_shrunk_to_the_box() -> None:
    buffer = io.BytesIO()
    Image.new("RGB", (640, 480), (10, 200, 30)).save(buffer, "JPEG")
    small = decode_image(buffer.getvalue(), (100, 100))
    assert small.shape == (75, 100, 3)
    assert np.abs(small.astype(int) - (10, 200, 30)).max() < 6
    assert decode_image(buffer.getvalue()).shape == (480, 640, 3)
