"""One contender of bench_loader.py in a process of its own: prints images/s each time it is asked.

python loader_contenders.py NAME FOLDER COUNT BATCH WORKERS CROP
"""

from __future__ import annotations

import gc
import json
import multiprocessing
import os
import random
import sys
import time
import traceback
from collections.abc import Callable, Iterable
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import torch
from loader_data import write_litdata, write_mds

from hotrain.input_rule import InputRule
from hotrain.loading.crop import CropRule, cut, draw_window
from hotrain.loading.data import decode_image
from hotrain.order import uniforms

WARM = 4  # batches before the clock starts: processes start, caches fill


class Setting:
    """What is loaded, and how; the same for all."""

    def __init__(self, folder: Path, count: int, batch: int, workers: int, crop: int) -> None:
        self.folder, self.count, self.batch, self.workers, self.crop = folder, count, batch, workers, crop
        self.epoch = 0

    def next_epoch(self) -> int:
        self.epoch += 1
        return self.epoch


def own_crop(image: bytes, mask: bytes, seed: int, crop: int) -> tuple[np.ndarray, np.ndarray]:
    """hotrain's decoding and cropping, for peers that are to do the same work: uint8 [S, S, 3] and [S, S]."""
    from hodata.shards.png import decode_mask

    label = decode_mask(mask)
    height, width = label.shape
    window = draw_window(width, height, InputRule(crop), CropRule(crop), uniforms(0, seed, 0, 4))
    pixels, labels = np.empty((crop, crop, 3), np.uint8), np.empty((crop, crop), np.uint8)
    cut(decode_image(image, "jpg", "k", (width, height), window.shrink), label, window, pixels, labels)
    return pixels, labels


def hotrain_data(setting: Setting) -> Any:
    from hodata.shards.reader import ShardIndex
    from hotrain.loading.data import CropData
    from hotrain.order import Order

    index = ShardIndex.open(setting.folder / "shards")
    rows = {"drawn": np.arange(len(index), dtype=np.int64)}
    return CropData(index, rows, Order({"drawn": len(index)}, 0), InputRule(setting.crop), CropRule(setting.crop))


def hotrain(setting: Setting) -> Callable[[], Iterable[Any]]:
    """Ours, as `hotrain fit` uses it: crc32 of every member checked, order by position."""
    from hotrain.loading.loader import Loader

    data = hotrain_data(setting)
    batches = setting.count // setting.batch

    def epoch() -> Iterable[Any]:
        start = setting.next_epoch() * batches * setting.batch
        stop = start + batches * setting.batch
        return iter(
            Loader(
                data, start=start, stop=stop, batch=setting.batch, micro=setting.batch, workers=setting.workers, keep=1
            )
        )

    return epoch


def webdataset(setting: Setting) -> Callable[[], Iterable[Any]]:
    """webdataset's own pipeline with torchvision's v2 transforms on uint8 tensors, as both documentations advise.

    Its README and examples batch in the workers, then unbatch, shuffle and batch again, since each worker reads whole
    shards: without that, samples of different shards never meet in a batch as they do in ours.
    """
    import io

    import webdataset as wds
    from PIL import Image
    from torchvision import tv_tensors
    from torchvision.transforms import v2

    transform = v2.Compose(
        [v2.ToImage(), v2.RandomResizedCrop(setting.crop, scale=(0.3, 1.0), antialias=True), v2.RandomHorizontalFlip()]
    )

    def gray(data: bytes) -> torch.Tensor:  # its "pil" would make an RGB picture of the label ids
        return tv_tensors.Mask(torch.from_numpy(np.array(Image.open(io.BytesIO(data)))))

    urls = sorted(str(path) for path in (setting.folder / "shards").glob("*.tar"))
    dataset = (
        wds.WebDataset(urls, shardshuffle=len(urls))
        .shuffle(1000)
        .decode(wds.handle_extension("mask.png", gray), "pil")
        .to_tuple("jpg", "mask.png")
        .map(transform)
        .batched(setting.batch, partial=False)
    )
    loader = wds.WebLoader(dataset, batch_size=None, num_workers=setting.workers)
    loader = loader.unbatched().shuffle(1000).batched(setting.batch, partial=False)
    return lambda: iter(loader)


def mosaicml(setting: Setting) -> Callable[[], Iterable[Any]]:
    """MosaicML streaming: a StreamingDataset in a DataLoader; hotrain's decoding and crops."""
    from streaming import StreamingDataset
    from torch.utils.data import DataLoader

    if not (setting.folder / "mds").exists():
        write_mds(setting.folder / "mds", setting.count)

    class Crops(StreamingDataset):
        def __getitem__(self, at: Any) -> Any:
            item = super().__getitem__(at)
            return own_crop(item["image"], item["mask"], int(at), setting.crop)

    dataset = Crops(local=str(setting.folder / "mds"), shuffle=True, batch_size=setting.batch)
    return lambda: iter(DataLoader(dataset, batch_size=setting.batch, num_workers=setting.workers, drop_last=True))


def litdata(setting: Setting) -> Callable[[], Iterable[Any]]:
    """LitData: a StreamingDataset in its StreamingDataLoader; hotrain's decoding and crops."""
    from litdata import StreamingDataLoader, StreamingDataset

    if not (setting.folder / "litdata").exists():
        write_litdata(setting.folder / "litdata", setting.count)

    transform = partial(_crop_item, crop=setting.crop)
    dataset = StreamingDataset(str(setting.folder / "litdata"), shuffle=True, drop_last=True, transform=transform)
    loader = StreamingDataLoader(dataset, batch_size=setting.batch, num_workers=setting.workers, drop_last=True)
    return lambda: iter(loader)


def _crop_item(item: dict[str, bytes], crop: int) -> tuple[np.ndarray, np.ndarray]:
    return own_crop(item["image"], item["mask"], random.getrandbits(32), crop)


class ReferenceFiles(torch.utils.data.Dataset):
    """The steps of the reference project's dataset: matplotlib, float64, one-hot masks, antialiased bilinear resize.

    Its masks are three-channel JPEGs; here they are the same PNGs as everywhere, which cost it less.
    """

    def __init__(self, setting: Setting) -> None:
        from torchvision import transforms

        self._images = sorted((setting.folder / "files").glob("*.jpg"))
        resize = [transforms.ToTensor(), transforms.Resize((setting.crop, setting.crop), antialias=True)]
        self._to_image = transforms.Compose([*resize, transforms.Normalize((0.5,) * 3, (0.5,) * 3)])
        self._to_mask = transforms.Compose(resize)

    def __len__(self) -> int:
        return len(self._images)

    def __getitem__(self, number: int) -> tuple[torch.Tensor, torch.Tensor]:
        from matplotlib import pyplot

        path = self._images[number]
        image = pyplot.imread(path) / 255
        ids = np.minimum(np.round(pyplot.imread(path.with_suffix(".png")) * 255), 2).astype(np.uint8)
        return self._to_image(image.astype(np.float32)), self._to_mask(np.eye(3)[ids])


def reference(setting: Setting) -> Callable[[], Iterable[Any]]:
    from torch.utils.data import DataLoader, RandomSampler

    dataset = ReferenceFiles(setting)
    taken = setting.batch * (WARM + 16)  # it is slow; the rest would only take time
    return lambda: iter(
        DataLoader(
            dataset,
            batch_size=setting.batch,
            sampler=RandomSampler(dataset, num_samples=min(taken, len(dataset))),
            num_workers=setting.workers,
        )
    )


def limit(setting: Setting) -> float:
    """images/s of as many bare processes: read, crc32, decode, crop, resize into one batch, again and again."""
    context = multiprocessing.get_context("fork")
    gate = context.Barrier(setting.workers + 1)
    data = hotrain_data(setting)
    batches = setting.count // setting.batch
    start = setting.next_epoch() * batches * setting.batch

    def work(worker: int) -> None:
        torch.set_num_threads(1)
        images = np.empty((setting.batch, setting.crop, setting.crop, 3), np.uint8)
        labels = np.empty((setting.batch, setting.crop, setting.crop), np.uint8)

        def load(number: int) -> None:
            positions = start + number * setting.batch + np.arange(setting.batch)
            _, rows = data.order.locate(positions)
            for place, (row, position) in enumerate(zip(rows.tolist(), positions.tolist(), strict=True)):
                data.write_crop(row, position, images[place], labels[place])

        load(worker)
        gate.wait()
        for number in range(worker, batches, setting.workers):
            load(number)
        gate.wait()

    processes = [context.Process(target=work, args=(worker,)) for worker in range(setting.workers)]
    for process in processes:
        process.start()
    gate.wait()
    begun = time.perf_counter()
    gate.wait()
    seconds = time.perf_counter() - begun
    for process in processes:
        process.join()
    return batches * setting.batch / seconds


def rate(batches: Iterable[Any], setting: Setting) -> tuple[float, int]:
    """images/s from the batch after the warm ones to the last, and all images; nothing is done with them."""
    begun, images = 0.0, []
    for number, batch in enumerate(batches):
        if number == WARM - 1:
            begun = time.perf_counter()
        images.append(len(batch["image"] if isinstance(batch, dict) else batch[0]))
    return sum(images[WARM:]) / (time.perf_counter() - begun), sum(images)


def measured(epoch: Callable[[], Iterable[Any]] | None, setting: Setting) -> dict[str, float]:
    """One run: images/s, and milliseconds of processor time an image of this process and those it started.

    The latter holds starting and stopping processes too, but not the time that other programs take: on a busy machine
    it is the better guide.
    """
    before = os.times()
    if epoch is None:
        per_second, images = limit(setting), setting.count
    else:
        per_second, images = rate(epoch(), setting)
        gc.collect()
        for child in multiprocessing.active_children():
            child.join(10)
    spent = sum(os.times()[:4]) - sum(before[:4])
    return {"rate": per_second, "processor": 1e3 * spent / images}


def main(name: str, folder: str, *numbers: str) -> None:
    answers = os.fdopen(os.dup(1), "w")
    os.dup2(2, 1)  # what a peer prints is no answer
    torch.set_num_threads(1)
    setting = Setting(Path(folder), *map(int, numbers))
    makers = {
        "hotrain": hotrain,
        "webdataset": webdataset,
        "mosaicml": mosaicml,
        "litdata": litdata,
        "reference": reference,
    }
    try:
        epoch = makers[name](setting) if name in makers else None
        measured(epoch, setting)  # once before it counts
        answer: dict[str, Any] = {"ready": True}
    except Exception:
        answer = {"error": traceback.format_exc().strip().splitlines()[-1]}
        traceback.print_exc()
    print(json.dumps(answer), file=answers, flush=True)
    for line in sys.stdin if "ready" in answer else ():
        assert line.strip() == "run"
        print(json.dumps(measured(epoch, setting)), file=answers, flush=True)


if __name__ == "__main__":
    main(*sys.argv[1:])
