"""Writing one shard: a deterministic USTAR tar under a temporary name, renamed when whole, then its index."""

from __future__ import annotations

import hashlib
import io
import json
import os
import tarfile
import zlib
from collections.abc import Iterable, Mapping
from dataclasses import replace
from pathlib import Path
from types import TracebackType
from typing import Any, BinaryIO

from hodata.errors import PlanError
from hodata.sample import Record, Sample, sample_json
from hodata.shards.index import IndexInfo, Member, TarFacts, index_row, write_index
from hodata.shards.png import encode_mask
from hodata.shards.tars import BLOCK

ERROR, UNANNOTATED = "error", "unannotated"  # why a sample was left out


class ShardWriter:
    """Writes samples to `<folder>/<shard>.tar` and, on a clean exit, commits it with `<shard>.index`.

    Used as a context manager; an exception removes the temporary file and leaves nothing that looks finished.

    Args:
        folder: exists and is writable.
        shard: file name without its suffix.
        info: metadata for the index; `tars` is filled in here.
        licence: goes into every JSON member.
        replace_existing: allow an existing tar or index of this name to be replaced.
    """

    def __init__(self, folder: Path, shard: str, info: IndexInfo, licence: str, replace_existing: bool) -> None:
        self.tar_path = folder / f"{shard}.tar"
        self.index_path = folder / f"{shard}.index"
        self._temporary = folder / f".{shard}.tar.tmp"
        self._info = info
        self._licence = licence
        self._replace = replace_existing
        self._rows: list[dict[str, Any]] = []
        self._left_out: list[dict[str, str]] = []

    def __enter__(self) -> ShardWriter:
        self._file = _HashingFile(self._temporary.open("wb"))
        self._tar = tarfile.open(fileobj=self._file, mode="w", format=tarfile.USTAR_FORMAT)
        return self

    def add(self, sample: Sample, record: Record, *, key: str, split: str) -> None:
        """Append one sample: image, mask and JSON, adjacent."""
        fields = sample_json(sample, record, key=key, source=self._info.name, split=split, licence=self._licence)
        text = json.dumps(fields, sort_keys=True, separators=(",", ":"), allow_nan=False)
        members = {
            "image": self._append(f"{key}.{sample.image_kind}", sample.image),
            "mask": self._append(f"{key}.mask.png", encode_mask(sample.mask)),
            "json": self._append(f"{key}.json", text.encode()),
        }
        self._rows.append(
            index_row(
                sample,
                record,
                key=key,
                source=self._info.name,
                split=split,
                shard=self.tar_path.name,
                members=members,
            )
        )

    def leave_out(self, what: str, why: str, kind: str = ERROR) -> None:
        """Note a sample of this shard that could not be converted, or that its dataset does not annotate."""
        self._left_out.append({"what": what, "why": why, "kind": kind})

    @property
    def errors(self) -> int:
        """How many samples could not be converted."""
        return errors_in(self._left_out)

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        try:
            if kind is None:
                self._commit()
        finally:
            self._temporary.unlink(missing_ok=True)  # first: closing flushes, which a full disk refuses
            self._file.close()

    def _append(self, name: str, data: bytes) -> Member:
        # mtime, ids and names keep TarInfo's zeros: the same samples give the same bytes.
        header = tarfile.TarInfo(name)
        header.size = len(data)
        offset = self._tar.offset + BLOCK
        self._tar.addfile(header, io.BytesIO(data))
        return Member(offset, len(data), zlib.crc32(data))

    def _commit(self) -> None:
        self._tar.close()
        self._file.flush_to_disk()
        facts = TarFacts(self.tar_path.name, self._file.size, self._file.sha256, len(self._rows))
        self._guard_foreign_tar(facts)
        self._temporary.replace(self.tar_path)
        info = replace(self._info, tars=(facts,), left_out=tuple(self._left_out))
        write_index(self.index_path, self._rows, info)

    def _guard_foreign_tar(self, facts: TarFacts) -> None:
        # A build killed between the two renames leaves a tar without index: it has these very bytes.
        if self._replace or not self.tar_path.exists():
            return
        with self.tar_path.open("rb") as file:
            if hashlib.file_digest(file, "sha256").hexdigest() != facts.sha256:
                raise PlanError(
                    f"{self.tar_path}: exists without an index and holds other bytes than this build would write; "
                    "move it away, choose another --name or --out, or pass --overwrite"
                )


def errors_in(left_out: Iterable[Mapping[str, str]]) -> int:
    """How many of the samples that an index lists as left out could not be converted."""
    return sum(item.get("kind", ERROR) == ERROR for item in left_out)


class _HashingFile(io.RawIOBase):
    """Counts and hashes what tarfile writes, so that the finished tar need not be read again."""

    def __init__(self, file: BinaryIO) -> None:
        self._out = file
        self._hash = hashlib.sha256()
        self.size = 0

    def write(self, data: Any) -> int:
        self._hash.update(data)
        self.size += len(data)
        return self._out.write(data)

    def tell(self) -> int:
        return self.size

    def flush_to_disk(self) -> None:
        self._out.flush()
        os.fsync(self._out.fileno())

    @property
    def sha256(self) -> str:
        return self._hash.hexdigest()

    def close(self) -> None:
        self._out.close()
