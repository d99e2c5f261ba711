"""What a person decided on the review page, done: accepted frames become a dataset, rejected ones are taken out,
others are annotated again.

    OUT/.annotate/applied.json      the verdicts that hold, and which second looks replace the first pass
    OUT/.annotate/again-<hash>/     the state of frames annotated again, perhaps by another model
    OUT/accepted/                   images, masks, labels.toml: `hodata build --source folder` reads it
"""

from __future__ import annotations

import hashlib
import json
import shutil
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from hodata.labels import TASKS
from hotrain.annotate.accepted import FOLDER as ACCEPTED
from hotrain.annotate.accepted import write_accepted
from hotrain.annotate.files import only_here, write_atomic
from hotrain.annotate.inputs import Inputs
from hotrain.annotate.pipeline import AnnotateConfig, finish, formats_of, frame_of, plan_of, process
from hotrain.annotate.review import Reviewed
from hotrain.annotate.state import APPLIED, FOLDER, State, current_records, read_applied
from hotrain.errors import AnnotateError
from hotrain.network import Network


@dataclass(frozen=True)
class Applied:
    """What was done.

    Args:
        accepted, rejected, again: frames.
        broken: of those to be annotated again, the ones that could not be read; they stay as they were.
        dataset: of the accepted frames; None: there are none.
        stopped: before it was all done.
    """

    accepted: int
    rejected: int
    again: int
    broken: int
    dataset: Path | None
    stopped: bool = False


def apply_review(out: Path, review: Reviewed, network: Network | None, *, tta: str = "", refine: str = "") -> Applied:
    """Keep, drop and annotate again.

    Args:
        out: a finished annotation; formats, extent and the like stay those of it.
        review: the verdicts; frames without one stay as they are.
        network: annotates again; None where no verdict asks for it.
        tta, refine: of the frames annotated again; empty: as before.

    Raises:
        AnnotateError: the review is of another annotation, names unknown frames, or asks for what is missing.
    """
    plan = State(out).plan()
    if plan is None or not (out / "frames.jsonl").is_file():
        raise AnnotateError(f"{out}: holds no finished annotation; finish it before its review is applied")
    with only_here(out):
        return _apply(out, plan, review, network, tta, refine)


def _apply(
    out: Path, plan: Mapping[str, Any], review: Reviewed, network: Network | None, tta: str, refine: str
) -> Applied:
    if review.model != plan["model"]:
        raise AnnotateError(
            f"the review judged an annotation by the model {review.model[:12]}, {out} holds one by "
            f"{plan['model'][:12]}; give the --out that was reviewed"
        )
    records = {record["row"]["frame"]: record for record in current_records(out)}
    unknown = sorted(set(review.frames) - set(records))
    if unknown:
        raise AnnotateError(
            f"the review judges {unknown[0]!r}, which {out} does not hold; was it annotated anew since?"
        )
    for name, verdict in review.frames.items():
        if records[name]["row"]["status"] == "rejected" and verdict == "accept":
            raise AnnotateError(f"{name} was rejected before and its files are gone; judge it `again`")
    task, config = TASKS[plan["task"]], _config(plan)

    applied, broken = read_applied(out), frozenset[str]()
    again = [records[name] for name, verdict in review.frames.items() if verdict == "again"]
    if again:
        if network is None:
            raise AnnotateError(f"{len(again)} frames are to be annotated again; give --checkpoint, the model to use")
        if network.task.name != task.name:
            raise AnnotateError(
                f"--checkpoint was trained with --task {network.task.name}, the annotation has {task.name}; "
                "annotate again with a model of the same task"
            )
        part, broken, whole = _annotate_again(
            network, out, again, replace(config, tta=tta or config.tta, refine=refine or config.refine)
        )
        if not whole:
            return Applied(0, 0, 0, 0, None, stopped=True)
        applied["again"] = [name for name in applied["again"] if name != part] + [part]
    for name, verdict in review.frames.items():
        if verdict == "reject":
            for file in records[name]["files"]:
                (out / file).unlink(missing_ok=True)
    # Rejected frames have no files any more, whatever another review says of the others.
    rejected = {name: verdict for name, verdict in applied["frames"].items() if verdict == "reject"}
    judged = {name: verdict for name, verdict in review.frames.items() if name not in broken}
    applied["frames"] = dict(sorted((rejected | judged).items()))
    write_atomic(out / FOLDER / APPLIED, (json.dumps(applied, indent=1) + "\n").encode())

    now = current_records(out)
    accepted = [record for record in now if record["row"]["review"] == "accept" and record["row"]["status"] == "ok"]
    dataset = None
    if accepted:
        dataset = write_accepted(out, accepted, task, config.extent, config.exif)
    else:
        shutil.rmtree(out / ACCEPTED, ignore_errors=True)
    finish(out, now, formats_of(task, config), task)
    counts = Counter(review.frames.values())
    return Applied(len(accepted), counts["reject"], len(again) - len(broken), len(broken), dataset)


def _annotate_again(
    network: Network, out: Path, records: Sequence[Mapping[str, Any]], config: AnnotateConfig
) -> tuple[str, frozenset[str], bool]:
    """Which part of the state holds the second look at some frames, which of them could not be read, and whether it is
    complete."""
    from hodata.shards.reader import ShardIndex
    from hotrain.annotate.pixels import is_shard

    frames = [frame_of(record) for record in records]
    shards = sorted({frame.path for frame in frames if is_shard(frame)})
    index = ShardIndex.open(shards) if shards else None
    if index is not None:
        rows = {key: row for row, key in enumerate(index.column("key"))}
        frames = [replace(frame, number=rows[frame.stem]) if is_shard(frame) else frame for frame in frames]
    plan = plan_of(network, config)
    facts = json.dumps([plan, [frame.name for frame in frames]])
    part = f"again-{hashlib.sha256(facts.encode()).hexdigest()[:12]}"
    found, _, whole = process(network, Inputs(frames, index), out, config, State.open(out, plan, part=part))
    broken = frozenset(record["row"]["frame"] for record in found if record["row"]["status"] == "broken")
    return part, broken, whole


def _config(plan: Mapping[str, Any]) -> AnnotateConfig:
    """The configuration that a plan was made of."""
    names = AnnotateConfig.__dataclass_fields__
    values = {name: value for name, value in plan.items() if name in names}
    return AnnotateConfig(**{**values, "formats": tuple(plan["formats"])})
