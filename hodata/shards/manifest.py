"""`<name>.manifest.json`: written last, it says that a build is complete, and everything about it."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from hodata.errors import ShardError
from hodata.files import replacing
from hodata.shards.index import is_file_name


def write_manifest(path: Path, manifest: Mapping[str, Any]) -> None:
    """Write atomically. The same build gives the same bytes: no time, host or absolute path belongs in it."""
    with replacing(path, durable=True) as temporary, temporary.open("w", encoding="utf-8") as file:
        json.dump(manifest, file, indent=1, sort_keys=True, ensure_ascii=False, allow_nan=False)
        file.write("\n")


def read_manifest(path: Path) -> dict[str, Any]:
    """Raises ShardError when the file is not a manifest."""
    try:
        manifest = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise ShardError(f"{path}: cannot be read as a manifest ({error}); run the build again") from error
    kinds = {"format_version": int, "plan": dict, "dataset": dict, "groups": dict, "shards": list, "left_out": list}
    if not isinstance(manifest, dict) or not all(isinstance(manifest.get(key), kind) for key, kind in kinds.items()):
        raise ShardError(f"{path}: is not a manifest of hodata; run the build again")
    if not all(isinstance(shard, dict) and is_file_name(shard.get("name")) for shard in manifest["shards"]):
        raise ShardError(f"{path}: its list of shards is damaged; run the build again")
    return manifest
