"""Outlines and run lengths against slow twins and against COCO's own library."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray
from pycocotools import mask as coco_mask

from hodata.sources.polygons import decode_counts, fill_polygon, fill_runs

SIZE = (37, 29)


def winding_parity(points: NDArray[np.float64], x: float, y: float) -> bool:
    """Even-odd rule: a ray to the right crosses the outline an odd number of times."""
    inside = False
    for (x0, y0), (x1, y1) in zip(points, np.roll(points, -1, axis=0), strict=True):
        if (y0 > y) != (y1 > y) and x < x0 + (y - y0) / (y1 - y0) * (x1 - x0):
            inside = not inside
    return inside


def distance_to_outline(points: NDArray[np.float64], x: float, y: float) -> float:
    best = np.inf
    here = np.array([x, y])
    for start, end in zip(points, np.roll(points, -1, axis=0), strict=True):
        along = end - start
        length = float(along @ along)
        t = 0.0 if length == 0 else float(np.clip((here - start) @ along / length, 0, 1))
        best = min(best, float(np.hypot(*(here - start - t * along))))
    return best


coordinates = st.tuples(st.floats(-8, 45, width=32), st.floats(-8, 40, width=32))


@settings(max_examples=60, deadline=None)
@given(st.lists(coordinates, min_size=3, max_size=9), st.sampled_from([0.0, 0.5, 1.0]))
def test_pixels_are_those_whose_centre_is_inside(points: list[tuple[float, float]], origin: float) -> None:
    outline = np.array(points, dtype=np.float64)
    filled = fill_polygon(outline, SIZE, origin=origin)
    assert filled.shape == (SIZE[1], SIZE[0])
    centred = outline - origin
    for y in range(SIZE[1]):
        for x in range(SIZE[0]):
            if distance_to_outline(centred, x, y) > 0.3:
                assert filled[y, x] == winding_parity(centred, x, y), (x, y)


def test_matlab_coordinates_are_one_based() -> None:
    """MATLAB's square from (3, 2) to (7, 5), drawn half a pixel wide round, is columns 2-6 and rows 1-4 from 0."""
    square = np.array([[2.5, 1.5], [7.5, 1.5], [7.5, 5.5], [2.5, 5.5]])
    rows, columns = np.nonzero(fill_polygon(square, SIZE, origin=1.0))
    assert (columns.min(), columns.max(), rows.min(), rows.max()) == (2, 6, 1, 4)
    assert len(rows) == 5 * 4


def test_the_repeated_last_point_changes_nothing() -> None:
    outline = np.array([[3.2, 4.1], [20.7, 6.3], [12.4, 22.9]])
    closed = np.vstack([outline, outline[:1]])
    assert (fill_polygon(outline, SIZE, origin=1.0) == fill_polygon(closed, SIZE, origin=1.0)).all()


@pytest.mark.parametrize(
    ("points", "words"),
    [
        (np.zeros((2, 2)), "at least 3"),
        (np.zeros((4, 3)), "shape"),
        (np.array([[0, 0], [np.nan, 1], [2, 2]]), "finite"),
        (np.array([[0, 0], [1e9, 1], [2, 2]]), "reaches to 1000000000"),
    ],
)
def test_hostile_outlines_are_refused(points: NDArray[np.float64], words: str) -> None:
    with pytest.raises(ValueError, match=words):
        fill_polygon(points, SIZE, origin=0.0)


@settings(max_examples=60, deadline=None)
@given(st.integers(1, 30), st.integers(1, 30), st.floats(0, 1), st.integers(0, 2**32 - 1))
def test_run_lengths_are_read_as_cocos_library_writes_them(width: int, height: int, share: float, seed: int) -> None:
    pixels = np.random.Generator(np.random.Philox(seed)).random((height, width)) < share
    counts = coco_mask.encode(np.asfortranarray(pixels.astype(np.uint8)))["counts"].decode()
    assert (fill_runs(decode_counts(counts), (width, height)) == pixels).all()


def test_long_runs_need_several_characters_and_signs() -> None:
    pixels = np.zeros((400, 700), dtype=bool)
    pixels[100:300, 50:600] = True
    pixels[:, 650] = True
    counts = coco_mask.encode(np.asfortranarray(pixels.astype(np.uint8)))["counts"].decode()
    assert (fill_runs(decode_counts(counts), (700, 400)) == pixels).all()


@pytest.mark.parametrize("counts", [[4, 4], [4, 40], [-1, 7], [], [2**62, 2**62]])
def test_runs_that_do_not_fill_the_picture_are_refused(counts: list[int]) -> None:
    with pytest.raises(ValueError, match="picture"):
        fill_runs(counts, (2, 3))


@pytest.mark.parametrize("text", ["é", " ", "o" * 40, "o"])
def test_damaged_strings_are_refused(text: str) -> None:
    with pytest.raises(ValueError, match="run"):
        decode_counts(text)
