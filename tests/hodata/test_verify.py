"""verify: what each mode promises, which samples are decoded, progress, and several processes."""

from __future__ import annotations

from pathlib import Path

import pytest
from test_cli import run

from hodata.build import BuildOptions, build
from hodata.errors import EmptySelectionError, HodataError
from hodata.shards import check, parallel, tars
from hodata.shards.reader import ShardIndex
from hodata.shards.select import Selector
from hodata.shards.verify import verify
from hodata.sources.freihand import FreiHand


@pytest.fixture
def built(freihand_root: Path, tmp_path: Path) -> Path:
    """Shards of 48 + 3 samples, 10 a shard."""
    build(FreiHand(freihand_root), tmp_path / "out", BuildOptions("freihand", samples_per_shard=10))
    return tmp_path / "out"


def test_only_chosen_samples_are_decoded_and_every_byte_is_read(built: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    index = ShardIndex.open(built)
    decoded = []
    monkeypatch.setattr(check, "_check_content", lambda file, row, *rest: decoded.append(row["key"]) or ())
    selector = Selector("split = 'train' and frame < 6", frozenset({str(index.column("key")[0]), "nobody"}))
    result = verify([built], full=True, selector=selector)
    wanted = selector.mask(index.arrow, len(index))
    assert 0 < wanted.sum() < 48
    assert sorted(decoded) == sorted(index.column("key")[wanted])
    assert (result.decoded, result.samples, result.ok) == (len(decoded), 51, True)
    assert result.notes == ["1 of 2 excluded keys are in none of the shards; the first: 'nobody'"]

    row = int(index.select(split="test")[0])
    path = index.shards[index.shard_number[row]]
    data = bytearray(path.read_bytes())
    data[int(index.column("image_offset")[row])] ^= 1
    path.write_bytes(data)
    (problem,) = verify([built], full=True, selector=selector).problems
    assert (problem.shard, problem.what) == (path.name, "its sha256 is not the recorded one: bytes have changed")
    with pytest.raises(EmptySelectionError, match="0 left by  frame > 1000000"):
        verify([built], full=True, selector=Selector("frame > 1000000"))


def test_where_goes_with_full(built: Path, capsys: pytest.CaptureFixture[str]) -> None:
    code, _, messages = run(capsys, "verify", built, "--where", "held")
    assert (code, "choose what --full decodes" in messages) == (2, True)
    code, text, _ = run(capsys, "verify", built, "--full", "--where", "split = 'test'")
    assert (code, text) == (0, "ok: 51 samples; checked every byte, images and label ids of 3 samples\n")
    code, text, _ = run(capsys, "verify", built)
    assert text == "ok: 51 samples; checked sizes, index and member table (--full checks the rest)\n"


@pytest.mark.parametrize("workers", [1, 3])
def test_progress_counts_bytes_with_full_and_shards_without(
    built: Path, workers: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(tars, "_CHUNK", 1000)
    monkeypatch.setattr(parallel, "_POLL_SECONDS", 0.01)
    shards = list(built.glob("*.tar"))
    for full, total in ((True, sum(path.stat().st_size for path in shards)), (False, len(shards))):
        seen: list[tuple[int, int]] = []
        assert verify([built], full=full, workers=workers, progress=lambda *done: seen.append(done)).ok  # noqa: B023
        assert {of for _, of in seen} == {total}
        assert [done for done, _ in seen] == sorted(done for done, _ in seen)
        assert (seen[0][0], seen[-1][0]) == (0, total)
        if workers == 1 and full:
            assert len(seen) > 2 * len(shards), "progress inside of shards"


def test_problems_are_the_same_from_several_processes(built: Path) -> None:
    for number in (0, 2):
        path = built / f"freihand-train-00000{number}.tar"
        data = bytearray(path.read_bytes())
        data[1000] ^= 16
        path.write_bytes(data)
    (built / "freihand-train-000003.index").unlink()
    one, three = (verify([built], full=True, workers=workers) for workers in (1, 3))
    assert one.problems == three.problems
    assert (one.samples, one.decoded) == (three.samples, three.decoded)
    assert {problem.shard for problem in one.problems} == {f"freihand-train-00000{number}.tar" for number in (0, 2, 3)}


def _die(name: str, advance: object) -> None:
    import os

    os._exit(3)


def test_a_process_that_dies_is_said_to_have(built: Path) -> None:
    with pytest.raises(HodataError, match="a worker process died"):
        list(parallel.each_shard(_die, [("a",), ("b",)], workers=2, total=2, progress=None))


def test_a_file_that_cannot_be_read_is_a_problem(built: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def failing(self: tars.FileHash, offset: int) -> None:
        raise OSError(5, "Input/output error")

    monkeypatch.setattr(tars.FileHash, "reach", failing)
    problems = verify([built], full=True).problems
    assert {problem.what for problem in problems} == {"cannot be read (Input/output error)"}
