"""Damage is found: cut tars, flipped payload bits, every bit of headers and padding. `-m soak` runs whole matrices.

Whatever is done to a tar, reading gives the bytes that were written or fails with its name.
"""

from __future__ import annotations

import io
import random
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from hodata.errors import ShardError
from hodata.labels import MEANINGS
from hodata.sample import Record, Sample, mask_instances
from hodata.shards.check import check_shard
from hodata.shards.index import MEMBERS, IndexInfo
from hodata.shards.reader import ShardIndex
from hodata.shards.select import Selector
from hodata.shards.writer import ShardWriter

SIZE = (12, 8)
SAMPLES = 3


@dataclass(frozen=True)
class Shard:
    """A small shard, its right bytes, and what its members hold."""

    path: Path
    data: bytes
    index: ShardIndex
    members: dict[tuple[int, str], bytes]

    @property
    def payload(self) -> np.ndarray:
        """bool [bytes]: inside of a member."""
        inside = np.zeros(len(self.data), dtype=bool)
        for row, member in self.members:
            start = int(self.index.column(f"{member}_offset")[row])
            inside[start : start + len(self.members[row, member])] = True
        return inside

    def with_bit_flipped(self, bit: int) -> None:
        """Flip one bit of the file; `bit` counts from the start of the right bytes."""
        with self.path.open("r+b") as file:
            file.seek(bit // 8)
            file.write(bytes([self.data[bit // 8] ^ 1 << bit % 8]))

    def mend(self, bit: int) -> None:
        with self.path.open("r+b") as file:
            file.seek(bit // 8)
            file.write(self.data[bit // 8 : bit // 8 + 1])


@pytest.fixture
def shard(tmp_path: Path) -> Iterator[Shard]:
    rng = np.random.default_rng(3)
    info = IndexInfo("tiny", "0" * 64, {}, [MEANINGS["exact"].to_json()], ())
    with ShardWriter(tmp_path, "tiny-train-000000", info, "none", False) as writer:
        for number in range(SAMPLES):
            buffer = io.BytesIO()
            Image.fromarray(rng.integers(0, 256, (SIZE[1], SIZE[0], 3), dtype=np.uint8)).save(buffer, "JPEG")
            mask = rng.choice(np.uint8([0, 9, 10]), (SIZE[1], SIZE[0]))
            sample = Sample(buffer.getvalue(), "jpg", mask, "exact", instances=mask_instances(mask))
            writer.add(sample, Record(f"tiny_{number}", "tiny/1", "", ""), key=f"tiny_{number}", split="train")
    path = writer.tar_path
    index, data = ShardIndex.open(path), path.read_bytes()
    members = {}
    for row in range(SAMPLES):
        for member in MEMBERS:
            offset, size = (int(index.column(f"{member}_{part}")[row]) for part in ("offset", "size"))
            members[row, member] = data[offset : offset + size]
    yield Shard(path, data, index, members)
    assert path.read_bytes() == data, "the test left damage behind"


def cut_everywhere(shard: Shard, lengths: Sequence[int]) -> int:
    """Every cut is refused on opening, by name; returns how many there were."""
    for length in lengths:
        shard.path.write_bytes(shard.data[:length])
        with pytest.raises(ShardError, match=rf"tiny-train-000000\.tar: is {length:,} bytes long, its index records"):
            ShardIndex.open(shard.path)
    shard.path.write_bytes(shard.data)
    return len(lengths)


def flip_payload(shard: Shard, bits: Sequence[int]) -> int:
    """A flipped payload bit makes reading its member fail, by name, and no other; returns how many there were."""
    reader = shard.index.reader()
    member_of = {}
    for row, member in shard.members:
        start = int(shard.index.column(f"{member}_offset")[row])
        for place in range(start, start + len(shard.members[row, member])):
            member_of[place] = (row, member)
    for bit in bits:
        shard.with_bit_flipped(bit)
        for place, right in shard.members.items():
            if place != member_of[bit // 8]:
                assert reader._read(place[1], place[0]) == right
                continue
            with pytest.raises(ShardError, match=rf"tiny-train-000000\.tar: tiny_{place[0]} \({place[1]}\) at offset"):
                reader._read(place[1], place[0])
        shard.mend(bit)
    return len(bits)


def flip_the_rest(shard: Shard, bits: Sequence[int]) -> int:
    """A bit of a header or of padding: verify --full finds it, and reading gives the right bytes all the same."""
    reader = shard.index.reader()
    for bit in bits:
        shard.with_bit_flipped(bit)
        found = check_shard(shard.path, True, Selector(), lambda done: None)
        assert any("sha256" in problem.what for problem in found.problems), f"bit {bit} was not found"
        if bit % 8 == 0:  # reading depends on no header: once a byte is plenty
            assert {place: reader._read(place[1], place[0]) for place in shard.members} == shard.members
        shard.mend(bit)
    return len(bits)


def spread(values: np.ndarray, count: int, seed: int = 0) -> list[int]:
    """`count` of some numbers, drawn."""
    return random.Random(seed).sample(values.tolist(), count)


def bits_of(places: np.ndarray) -> np.ndarray:
    """Numbers of all bits of some bytes (bool [bytes])."""
    return (np.flatnonzero(places)[:, None] * 8 + np.arange(8)).ravel()


def test_a_cut_tar_does_not_open(shard: Shard) -> None:
    assert cut_everywhere(shard, [0, 1, 511, 512, len(shard.data) - 1, *range(700, len(shard.data), 997)])


def test_a_flipped_payload_bit_is_never_read(shard: Shard) -> None:
    assert flip_payload(shard, spread(bits_of(shard.payload), 60))


def test_a_flipped_bit_of_header_or_padding_is_found(shard: Shard) -> None:
    assert flip_the_rest(shard, spread(bits_of(~shard.payload), 60))


def test_an_index_cut_or_with_a_flipped_bit_never_gives_other_rows(shard: Shard) -> None:
    assert damage_index(shard, 40)


def damage_index(shard: Shard, every: int) -> int:
    """Cut or flip the index file: it fails by name, or says what it said (a bit that nothing of it depends on)."""
    path = shard.path.with_suffix(".index")
    right = path.read_bytes()
    count = 0
    for length in range(0, len(right), every):
        path.write_bytes(right[:length])
        with pytest.raises(ShardError, match=r"tiny-train-000000\.index"):
            ShardIndex.open(shard.path)
        count += 1
    columns_end = right.rindex(b"hodata")  # the footer holds the metadata's key; before it stand the checked pages
    columns_end = min(columns_end, len(right) - int.from_bytes(right[-8:-4], "little") - 8)
    for bit in range(0, 8 * columns_end, 2 * every + 1):
        data = bytearray(right)
        data[bit // 8] ^= 1 << bit % 8
        path.write_bytes(data)
        try:
            index = ShardIndex.open(shard.path)
        except ShardError:
            pass
        else:
            assert index.table.equals(shard.index.table), f"bit {bit} changed what the index says"
        count += 1
    path.write_bytes(right)
    return count


@pytest.mark.soak
def test_every_cut_and_two_thousand_payload_bits(shard: Shard, capsys: pytest.CaptureFixture[str]) -> None:
    cuts = cut_everywhere(shard, range(len(shard.data)))
    payload = flip_payload(shard, spread(bits_of(shard.payload), 2_000, seed=1))
    with capsys.disabled():
        print(f"\ndamage: {cuts:,} cuts refused on opening, {payload:,} payload bits refused on reading")


@pytest.mark.soak
@pytest.mark.parametrize("part", range(4))
def test_every_bit_of_headers_and_padding(shard: Shard, part: int, capsys: pytest.CaptureFixture[str]) -> None:
    bits = bits_of(~shard.payload)
    count = flip_the_rest(shard, bits[part::4].tolist())
    with capsys.disabled():
        print(f"\ndamage: all {count:,} bits of headers and padding found by verify --full (part {part + 1} of 4)")


@pytest.mark.soak
def test_every_cut_and_many_bits_of_the_index(shard: Shard, capsys: pytest.CaptureFixture[str]) -> None:
    count = damage_index(shard, 4)
    with capsys.disabled():
        print(f"\ndamage: {count:,} cuts and bits of the index refused, or without effect")


@pytest.mark.soak
def test_every_bit_of_a_tar_of_another_program(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    from test_foreign import OPTIONS, samples, write_tar

    from hodata.shards.foreign import index_tars

    path = write_tar(tmp_path / "theirs.tar", samples(2))
    index_tars([path], OPTIONS)
    right = path.read_bytes()
    reader = ShardIndex.open(path).reader()
    wanted = {(row, member): reader._read(member, row) for row in range(2) for member in ("image", "mask")}
    for bit in range(0, 8 * len(right), 19):
        data = bytearray(right)
        data[bit // 8] ^= 1 << bit % 8
        path.write_bytes(data)
        assert check_shard(path, True, Selector(), lambda done: None).problems
        if bit % 5 == 0:
            damaged = ShardIndex.open(path).reader()
            for (row, member), content in wanted.items():
                try:
                    assert damaged._read(member, row) == content
                except ShardError as error:
                    assert "theirs.tar" in str(error)
    with capsys.disabled():
        print(f"\nforeign tar: all {len(range(0, 8 * len(right), 19)):,} flipped bits found")
