"""The index beside a shard: one Parquet row per sample, which commits the tar and makes it random-access."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from hodata.errors import ShardError
from hodata.files import replacing
from hodata.labels import HANDS, LABELS, Meaning
from hodata.sample import Record, Sample
from hodata.shards import FORMAT_VERSION

if TYPE_CHECKING:
    import pyarrow as pa

MEMBERS = ("image", "mask", "json")
# What a source measured of a sample (`Sample.quality`), -1 where it did not; the unit is in the name, IoUs are 0 to 1.
QUALITY = ("residual_joints_mm", "residual_corners_mm", "iou_silhouette", "iou_seg")
_METADATA_KEY = b"hodata"


@dataclass(frozen=True)
class Member:
    """Where one member's bytes lie in the tar."""

    offset: int
    size: int
    crc32: int


@dataclass(frozen=True)
class TarFacts:
    """What a finished tar must be."""

    name: str
    bytes: int
    sha256: str
    samples: int


@dataclass(frozen=True)
class IndexInfo:
    """The metadata of an index file.

    Args:
        name: the build's name, which is the file prefix and the source's name in every table.
        plan_hash: sha256 of the plan that the tars were written from.
        plan: what the plan depends on, readable, so that another plan's difference can be named.
        meanings: `Meaning.to_json` of every meaning the rows refer to.
        tars: the tars whose rows follow, in order.
        left_out: samples of these tars that were left out: [{what, why, kind}].
    """

    name: str
    plan_hash: str
    plan: Mapping[str, Any]
    meanings: Sequence[Mapping[str, Any]]
    tars: Sequence[TarFacts]
    left_out: Sequence[Mapping[str, str]] = field(default_factory=tuple)
    format_version: int = FORMAT_VERSION

    @property
    def foreign(self) -> bool:
        """Whether another program wrote the tar, and `hodata index` this."""
        return self.plan.get("foreign") is True


def schema() -> pa.Schema:
    """The columns of an index. Never null: what is unknown is an empty string or list, or -1."""
    import pyarrow as pa

    text = ["key", "source", "split", "subset", "group", "recording", "sequence"]
    columns: list[tuple[str, pa.DataType]] = [(name, pa.string()) for name in text]
    columns += [("frame", pa.int64())]
    columns += [(name, pa.string()) for name in ("camera", "instant", "subject", "view")]
    columns += [
        ("width", pa.int32()),
        ("height", pa.int32()),
        ("shard", pa.string()),
        ("image_kind", pa.string()),
    ]
    for member in MEMBERS:
        columns += [
            (f"{member}_offset", pa.int64()),
            (f"{member}_size", pa.int64()),
            (f"{member}_crc32", pa.uint32()),
        ]
    columns += [("meaning", pa.string()), ("mask_origin", pa.string())]
    columns += [(f"pixels_{label.label_name}", pa.int32()) for label in LABELS]
    columns += [
        ("hand_boxes", pa.list_(pa.list_(pa.int32()))),
        ("objects", pa.list_(pa.string())),
        ("held", pa.bool_()),
        ("visible_fraction_hand", pa.float32()),
        ("visible_fraction_object", pa.float32()),
    ]
    columns += [(name, pa.float32()) for name in QUALITY]
    return pa.schema([pa.field(name, kind, nullable=False) for name, kind in columns])


def index_row(
    sample: Sample,
    record: Record,
    *,
    key: str,
    source: str,
    split: str,
    shard: str,
    members: Mapping[str, Member],
) -> dict[str, Any]:
    """The row of one written sample."""
    counts = np.bincount(sample.mask.ravel(), minlength=256)
    height, width = sample.mask.shape
    hands = [item for item in sample.instances if item.label in HANDS and item.area]
    things = [item for item in sample.instances if item.label not in HANDS and item.area]
    row: dict[str, Any] = {
        "key": key,
        "source": source,
        "split": split,
        "subset": record.subset,
        "group": record.group,
        "recording": record.recording,
        "sequence": record.sequence,
        "frame": record.frame,
        "camera": sample.camera.id or record.camera,
        "instant": record.instant,
        "subject": sample.subject or record.subject,
        "view": record.view,
        "width": width,
        "height": height,
        "shard": shard,
        "image_kind": sample.image_kind,
        "meaning": sample.meaning,
        "mask_origin": record.mask_origin,
        "hand_boxes": [item.box for item in hands],
        "objects": [item.name for item in sample.objects],
        "held": any(item.held for item in sample.objects),
        "visible_fraction_hand": max((item.visible_fraction for item in hands), default=-1.0),
        "visible_fraction_object": max((item.visible_fraction for item in things), default=-1.0),
    }
    row |= {name: float(sample.quality.get(name, -1.0)) for name in QUALITY}
    for name, member in members.items():
        row |= {f"{name}_offset": member.offset, f"{name}_size": member.size, f"{name}_crc32": member.crc32}
    row |= {f"pixels_{label.label_name}": int(counts[label]) for label in LABELS}
    return row


def write_index(path: Path, rows: Sequence[Mapping[str, Any]] | pa.Table, info: IndexInfo) -> None:
    """Write rows and metadata to `path`, which appears when complete and on the disk."""
    import pyarrow as pa
    import pyarrow.parquet as pq

    table = rows if isinstance(rows, pa.Table) else pa.Table.from_pylist(list(rows), schema=schema())
    metadata = json.dumps(asdict(info), sort_keys=True, separators=(",", ":"))
    table = table.cast(schema()).replace_schema_metadata({_METADATA_KEY: metadata})
    with replacing(path, durable=True) as temporary, temporary.open("wb") as file:
        # Checksums: a flipped bit in an index could give a mask another meaning.
        pq.write_table(table, file, compression="zstd", write_page_checksum=True)


def read_index(path: Path) -> tuple[pa.Table, IndexInfo]:
    """Rows (exactly the columns of `schema`) and metadata of an index.

    Raises:
        ShardError: not an index, damaged, or of a newer format version.
    """
    table = read_columns(path, None)
    info = parse_info(path, table.schema.metadata, len(table))
    try:
        return table.select(schema().names).cast(schema()), info
    except (KeyError, ValueError) as error:  # pyarrow's own errors are ValueErrors here
        raise ShardError(f"{path}: lacks columns of an index ({error}); delete it and run the build again") from error


def read_columns(path: Path, names: Sequence[str] | None, coded: Sequence[str] = ()) -> pa.Table:
    """Columns of an index file, their checksums verified; None: all that it has.

    Args:
        path: the file.
        names: of the columns.
        coded: those that come dictionary-encoded.

    Raises:
        ShardError: missing or damaged.
    """
    import pyarrow as pa
    import pyarrow.parquet as pq

    columns = None if names is None else list(names)
    try:
        # Not pq.read_table: it loads pyarrow.dataset, a tenth of a second.
        with pq.ParquetFile(path, read_dictionary=list(coded), page_checksum_verification=True) as file:
            return file.read(columns=columns)
    except FileNotFoundError:
        raise ShardError(f"{path}: no such index; the shard beside it was not finished, run the build again") from None
    except (pa.ArrowException, OSError) as error:
        raise ShardError(f"{path}: cannot be read as an index ({error}); delete it and run the build again") from error


def read_info(path: Path) -> IndexInfo:
    """Only the metadata of an index, without its rows; raises as `read_index`."""
    import pyarrow as pa
    import pyarrow.parquet as pq

    try:
        return parse_info(path, pq.read_schema(path).metadata)
    except (pa.ArrowException, OSError) as error:
        raise ShardError(f"{path}: cannot be read as an index ({error}); delete it and run the build again") from error


def parse_info(path: Path, metadata: Mapping[bytes, bytes] | None, rows: int | None = None) -> IndexInfo:
    """The metadata of an index file, checked, against its number of rows too if that is given."""
    try:
        data = json.loads((metadata or {})[_METADATA_KEY])
        version = data["format_version"]
    except (KeyError, ValueError, TypeError):
        raise ShardError(f"{path}: is a Parquet file, but not an index of hodata") from None
    if version != FORMAT_VERSION:
        raise ShardError(
            f"{path}: format version is {version}, this program reads {FORMAT_VERSION}; "
            "build the shards again or use the program that wrote them"
        )
    try:
        info = IndexInfo(**{**data, "tars": tuple(TarFacts(**tar) for tar in data["tars"])})
        for meaning in info.meanings:
            Meaning.from_json(meaning)
        names = [tar.name for tar in info.tars]
        sound = bool(names) and all(is_file_name(name) for name in names)
        sound = sound and isinstance(info.plan, dict) and all(tar.samples >= 0 for tar in info.tars)
        sound = sound and len(set(names)) == len(names)
    except (KeyError, TypeError, ValueError, AttributeError) as error:
        raise ShardError(f"{path}: its metadata lacks a field ({error}); build the shards again") from error
    if not sound:
        raise ShardError(f"{path}: its metadata names no tars, one twice, or no plan; build the shards again")
    if rows is not None and rows != sum(tar.samples for tar in info.tars):
        raise ShardError(f"{path}: holds {rows:,} rows, its metadata says otherwise; run the build again")
    return info


def is_file_name(name: Any) -> bool:
    """Whether what a file says is the name of one beside it, and no path that leads elsewhere."""
    return isinstance(name, str) and name not in ("", ".", "..") and "\0" not in name and Path(name).name == name
