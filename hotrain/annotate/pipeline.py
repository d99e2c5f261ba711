"""From frames to files: decode in threads, the network in the main one, everything after it in threads again."""

from __future__ import annotations

import json
from collections import Counter, deque
from collections.abc import Iterator, Mapping, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from hodata.labels import Task
from hotrain.annotate.files import only_here, write_atomic
from hotrain.annotate.flip import flip_average
from hotrain.annotate.formats import Answer, Format, Options, create_formats
from hotrain.annotate.formats.base import Finished
from hotrain.annotate.inputs import Frame, Inputs
from hotrain.annotate.loading import Broken, Loaded, Loading, thread_count
from hotrain.annotate.refine import Patch, hand_classes, paste, patches_of
from hotrain.annotate.rle import encode, merge
from hotrain.annotate.state import Batch, State, cut
from hotrain.annotate.statistics import add_neighbours, frame_statistics, kind_masks
from hotrain.decide import decide
from hotrain.errors import AnnotateError
from hotrain.network import Network
from hotrain.progress import progress
from hotrain.stop import StopSignals

_AHEAD = 2  # batches that are decoded, or written, while the network has one
_SHOWN = 20  # broken frames named on the screen; frames.jsonl has all


@dataclass(frozen=True)
class AnnotateConfig:
    """What decides the bytes of an annotation, besides model and frames.

    Args:
        formats: names of `formats.FORMATS`.
        extent: where a hand ends, `wrist` or `arm`.
        batch_size: frames that enter the network together.
        tta: `none`, or `flip`: the mean of the logits with those of the mirrored picture.
        refine: `none`, `crop`: a closer look at every hand, or `auto`: at hands that the network saw small.
        exif: pictures that viewers turn: `refuse`, `upright` or `stored`.
        keep_all, visualise: of format honnotate.
    """

    formats: tuple[str, ...] = ("png",)
    extent: str = "wrist"
    batch_size: int = 8
    tta: str = "none"
    refine: str = "auto"
    exif: str = "refuse"
    keep_all: bool = False
    visualise: bool = False


@dataclass(frozen=True)
class Summary:
    """What came of it: frames in all, how many of them are broken, how many were done before, flag -> frames."""

    frames: int
    broken: int
    before: int
    flags: Mapping[str, int]
    stopped: bool = False


def annotate(
    network: Network, inputs: Inputs, out: Path, config: AnnotateConfig, *, overwrite: bool = False
) -> Summary:
    """Annotate all frames, or go on with those that an earlier call left.

    Args:
        network: the model.
        inputs: the frames.
        out: the folder to write to.
        config: what to write and how.
        overwrite: begin anew where `out` holds an annotation by another model or with other options.

    Raises:
        AnnotateError: `out` holds something else, cannot be written, or not one frame could be annotated.
    """
    formats = formats_of(network.task, config)
    _refuse_equal_files(inputs, formats)
    with only_here(out):
        return _annotate(network, inputs, out, config, formats, overwrite)


def _annotate(
    network: Network,
    inputs: Inputs,
    out: Path,
    config: AnnotateConfig,
    formats: Sequence[Format],
    overwrite: bool,
) -> Summary:
    state = State.open(out, plan_of(network, config), overwrite=overwrite)
    records, before, whole = process(network, inputs, out, config, state)
    if not whole:
        return Summary(len(inputs.frames), 0, before, {}, stopped=True)
    broken = sum(record["row"]["status"] == "broken" for record in records)
    if broken == len(records):
        first = records[0]["row"]
        raise AnnotateError(f"none of the {broken} frames could be annotated; {first['frame']}: {first['error']}")
    rows = finish(out, records, formats, network.task)
    flags = Counter(flag for row in rows for flag in row["flags"])
    return Summary(len(records), broken, before, dict(flags))


def formats_of(task: Task, config: AnnotateConfig) -> list[Format]:
    """The formats of a run."""
    return create_formats(config.formats, task, Options(config.extent, config.keep_all, config.visualise, config.exif))


def process(
    network: Network, inputs: Inputs, out: Path, config: AnnotateConfig, state: State
) -> tuple[list[dict[str, Any]], int, bool]:
    """Annotate the frames that `state` does not know as finished, and note them there.

    Returns:
        the records of all finished frames in order, how many of them were there before, and whether that is all: a
        stop signal ends it early.
    """
    batches = cut(inputs.frames, config.batch_size)
    records = {batch.number: found for batch in batches if (found := state.read(batch)) is not None}
    before = sum(len(found) for found in records.values())
    todo = [batch for batch in batches if batch.number not in records]
    shown = 0
    with StopSignals() as stop, progress("annotate", len(inputs.frames), before) as bar:
        for note in inputs.notes:
            bar.say(note)
        if before:
            bar.say(f"{before:,} of {len(inputs.frames):,} frames are done already")
        run = _Run(network, inputs, out, config, formats_of(network.task, config))
        for batch, found in run.over(todo, stop):
            state.save(batch, found)
            records[batch.number] = found
            for row in (record["row"] for record in found):
                if row["status"] == "broken":
                    shown += 1
                    if shown <= _SHOWN:
                        bar.say(f"skipped {row['frame']}: {row['error']}")
            bar.advance(len(found))
    done = [record for batch in batches for record in records.get(batch.number, ())]
    whole = len(records) == len(batches)
    if whole:
        state.forget_beyond(len(batches))
    return done, before, whole


def plan_of(network: Network, config: AnnotateConfig) -> dict[str, Any]:
    """What an output folder remembers of how it was made."""
    return {
        "model": network.identity,
        "task": network.task.name,
        "temperature": network.temperature,
        **asdict(config),
        "formats": sorted(config.formats),
    }


def finished_rows(records: Sequence[Mapping[str, Any]], task: Task) -> list[dict[str, Any]]:
    """The rows of frames.jsonl: those of the records, with what neighbours tell."""
    rows = [dict(record["row"]) for record in records]
    kinds = [_kinds_rle(record["rle"], task) if record["row"]["status"] == "ok" else None for record in records]
    add_neighbours(rows, kinds)
    return rows


def finish(
    out: Path, records: Sequence[Mapping[str, Any]], formats: Sequence[Format], task: Task
) -> list[dict[str, Any]]:
    """Write the files of the whole run, frames.jsonl last; returns its rows."""
    rows = finished_rows(records, task)
    for form in formats:
        whole = [
            Finished(frame_of(record), row, record["rle"], record["facts"].get(form.name))
            for row, record in zip(rows, records, strict=True)
            if row["status"] == "ok"
        ]
        form.finish(out, whole)
    write_atomic(out / "frames.jsonl", "".join(json.dumps(row) + "\n" for row in rows).encode())
    return rows


class _Run:
    """The batches on their way through threads and network."""

    def __init__(
        self, network: Network, inputs: Inputs, out: Path, config: AnnotateConfig, formats: Sequence[Format]
    ) -> None:
        self._network, self._inputs, self._out, self._config, self._formats = network, inputs, out, config, formats
        self._fold, self._wrist = network.task.fold(config.extent), network.task.fold("wrist")
        self._hand = hand_classes(network.task)
        self._image_needed = any(form.needs_image for form in formats)

    def over(self, todo: Sequence[Batch], stop: StopSignals) -> Iterator[tuple[Batch, list[dict[str, Any]]]]:
        """Finished batches in order. After a stop signal those that the network has seen are still finished."""
        written: deque[tuple[Batch, list[Future[dict[str, Any]]]]] = deque()
        with ThreadPoolExecutor(thread_count(), thread_name_prefix="annotate") as pool:
            loading = Loading(self._inputs, self._network.rule, self._config.exif, pool)
            try:
                for batch, parts in self._loaded(loading, todo, stop):
                    written.append((batch, self._apply(pool, parts)))
                    while len(written) > _AHEAD:
                        yield _result(written.popleft())
                while written:
                    yield _result(written.popleft())
            finally:
                pool.shutdown(wait=False, cancel_futures=True)
                loading.close()

    def _loaded(
        self, loading: Loading, todo: Sequence[Batch], stop: StopSignals
    ) -> Iterator[tuple[Batch, list[Loaded | Broken]]]:
        ahead: deque[tuple[Batch, list[Future[Loaded | Broken]]]] = deque()
        for batch in todo:
            if stop.asked:
                return
            ahead.append((batch, loading.submit(batch.frames)))
            if len(ahead) > _AHEAD:
                batch_then, futures = ahead.popleft()
                yield batch_then, [future.result() for future in futures]
        while ahead and not stop.asked:
            batch_then, futures = ahead.popleft()
            yield batch_then, [future.result() for future in futures]

    def _apply(self, pool: ThreadPoolExecutor, parts: Sequence[Loaded | Broken]) -> list[Future[dict[str, Any]]]:
        """The network on the frames of a batch, those of one size together; the rest goes on in threads."""
        futures: list[Future[dict[str, Any]] | None] = [None] * len(parts)
        by_size: dict[tuple[int, ...], list[int]] = {}
        for place, part in enumerate(parts):
            if isinstance(part, Broken):
                futures[place] = pool.submit(_broken_record, part)
            else:
                by_size.setdefault(part.prepared.shape, []).append(place)
        for places in by_size.values():
            loaded = [part for place in places if isinstance(part := parts[place], Loaded)]
            logits, disagreements = self._logits([part.prepared for part in loaded])
            patches = patches_of(self._network, loaded, logits, self._fold, self._config.refine)
            for number, place in enumerate(places):
                futures[place] = pool.submit(
                    self._finish_frame, loaded[number], logits[number], disagreements[number], patches[number]
                )
        return [future for future in futures if future is not None]

    def _logits(self, prepared: Sequence[NDArray[np.uint8]]) -> tuple[NDArray[np.float32], Sequence[float | None]]:
        straight = self._network.logits(prepared)
        if self._config.tta != "flip":
            return straight, [None] * len(prepared)
        mirrored = self._network.logits([np.ascontiguousarray(image[:, ::-1]) for image in prepared])
        return flip_average(straight, mirrored, self._network.task, self._fold)

    def _finish_frame(
        self, loaded: Loaded, logits: NDArray[np.float32], disagreement: float | None, patches: Sequence[Patch]
    ) -> dict[str, Any]:
        """Decide, measure, write; what the state keeps of a frame."""
        task, temperature = self._network.task, self._network.temperature
        classes, confidence = decide(logits, loaded.size, self._fold, temperature)
        paste(classes, confidence, patches, self._fold, self._hand, temperature)
        wrist = classes
        if self._config.extent != "wrist" and "honnotate" in self._config.formats:
            wrist, unused = decide(logits, loaded.size, self._wrist, temperature)
            paste(wrist, unused, patches, self._wrist, self._hand, temperature)
        masks = kind_masks(classes, task)
        image = loaded.image() if self._image_needed else None
        answer = Answer(loaded.frame, classes, wrist, confidence, masks, image)
        sizes, facts = {}, {}
        for form in self._formats:
            for name, data in form.files(answer):
                write_atomic(self._out / name, data)
                sizes[name] = len(data)
            if (fact := form.facts(answer)) is not None:
                facts[form.name] = fact
        row = {**_row(loaded, "ok"), **frame_statistics(masks, confidence, disagreement)}
        if patches:
            row["refined"] = len(patches)
        rle = {name: encode(classes == number) for number, name in enumerate(task.public_classes) if number}
        return {**_origin(loaded.frame), "row": row, "files": sizes, "rle": rle, "facts": facts}


def _row(part: Loaded | Broken, status: str) -> dict[str, Any]:
    frame = part.frame
    width, height = part.size if isinstance(part, Loaded) else (0, 0)
    return {
        "frame": frame.name,
        "recording": frame.recording,
        "camera": frame.camera,
        "width": width,
        "height": height,
        "status": status,
    }


def _broken_record(part: Broken) -> dict[str, Any]:
    row = {**_row(part, "broken"), "error": part.why}
    return {**_origin(part.frame), "row": row, "files": {}, "rle": None, "facts": {}}


def _origin(frame: Frame) -> dict[str, Any]:
    return {
        "source": str(frame.path.absolute()),
        "number": frame.number,
        "sequence": frame.sequence,
        "stem": frame.stem,
    }


def frame_of(record: Mapping[str, Any]) -> Frame:
    """The frame of a record, as it was listed."""
    row, path = record["row"], Path(record["source"])
    return Frame(row["frame"], record["sequence"], row["camera"], record["stem"], path, record["number"])


def _result(entry: tuple[Batch, list[Future[dict[str, Any]]]]) -> tuple[Batch, list[dict[str, Any]]]:
    batch, futures = entry
    return batch, [future.result() for future in futures]


def _kinds_rle(rle: Mapping[str, Any] | None, task: Task) -> dict[str, Any] | None:
    """RLE by class -> RLE by kind."""
    if rle is None:
        return None
    kinds: dict[str, list[Any]] = {}
    for name, found in rle.items():
        kinds.setdefault(task.kind_of(task.classes.index(name)), []).append(found)
    return {kind: found[0] if len(found) == 1 else merge(found) for kind, found in kinds.items()}


def _refuse_equal_files(inputs: Inputs, formats: Sequence[Format]) -> None:
    """Formats that name files by camera and stem alone cannot tell every two frames apart."""
    seen: dict[tuple[str, ...], str] = {}
    for frame in inputs.frames:
        for place in (place for form in formats for place in form.places(frame)):
            other = seen.setdefault(place, frame.name)
            if other != frame.name:
                raise AnnotateError(
                    f"{other} and {frame.name} have one sequence, camera and stem, which is all that the formats "
                    "honnotate and binary keep; annotate them into two --out folders, or with --format png"
                )
