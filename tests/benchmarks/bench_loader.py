"""Images/s of loading 640x480 JPEGs and masks as crops of 256 with two processes: ours beside what people use.

    make bench                                   or: python tests/benchmarks/bench_loader.py [--peers PYTHON]

All contenders load the same drawn images and masks from the page cache, in batches of 32, with the same number of
loading processes; each is a process of its own that waits while the others run. Rounds alternate between them, each
beginning with another, so that a busy machine slows all alike; the ratio is the median of the rounds' ratios. Ours
checks the crc32 of every member. LitData and MosaicML streaming run hotrain's own decoding and cropping, so that only
loading differs.

Peers need an environment of their own (peers.txt): MosaicML streaming wants NumPy below 2.2.
"""

from __future__ import annotations

import argparse
import json
import os
import statistics
import subprocess
import sys
import tempfile
from pathlib import Path

HERE = Path(__file__).resolve().parent
CONTENDERS = {
    "hotrain": ("hotrain", None),
    "limit": ("in-process limit (same work, no loader)", 0.9),
    "reference": ("reference project (matplotlib, float64, one-hot)", 8.0),
    "webdataset": ("webdataset + torchvision v2", 2.5),
    "litdata": ("LitData, hotrain's decode and crop", 1.0),
    "mosaicml": ("MosaicML streaming, hotrain's decode and crop", 1.1),
}
OWN = ("hotrain", "limit")


class Contender:
    """A running loader_contenders.py."""

    def __init__(self, name: str, python: str, arguments: list[str]) -> None:
        path = os.pathsep.join([str(HERE.parents[1]), str(HERE), os.environ.get("PYTHONPATH", "")])
        env = {**os.environ, "OMP_NUM_THREADS": "1", "PYTHONPATH": path}
        self.process = subprocess.Popen(
            [python, str(HERE / "loader_contenders.py"), name, *arguments],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=None if os.environ.get("BENCH_DEBUG") else subprocess.DEVNULL,
            text=True,
            env=env,
        )
        self.error = self._answer().get("error", "")
        self.rates: list[float] = []
        self.processor: list[float] = []

    def _answer(self) -> dict:
        assert self.process.stdout is not None
        line = self.process.stdout.readline()
        return json.loads(line) if line else {"error": f"ended with exit code {self.process.wait()}"}

    def run(self) -> None:
        assert self.process.stdin is not None
        self.process.stdin.write("run\n")
        self.process.stdin.flush()
        answer = self._answer()
        self.error = answer.get("error", "")
        self.rates.append(answer.get("rate", float("nan")))
        self.processor.append(answer.get("processor", float("nan")))

    def close(self) -> None:
        assert self.process.stdin is not None
        self.process.stdin.close()
        try:
            self.process.wait(30)
        except subprocess.TimeoutExpired:
            self.process.kill()


def find_peers() -> str:
    """The interpreter of the peers' environment, made where it is missing."""
    from peers import peer_python

    return str(peer_python())


def _ratio(ratios: list[float]) -> str:
    return f"{statistics.median(ratios):.2f} ({min(ratios):.2f} to {max(ratios):.2f})"


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--peers", help="Python of an environment with peers.txt installed.")
    parser.add_argument("--samples", type=int, default=4096)
    parser.add_argument("--batch", type=int, default=32)
    parser.add_argument("--workers", type=int, default=2)
    parser.add_argument("--crop", type=int, default=256)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--only", nargs="*", choices=list(CONTENDERS), default=list(CONTENDERS), help="In this order.")
    options = parser.parse_args()
    sys.path.insert(0, str(HERE.parents[1]))
    from loader_data import write_files, write_shards

    needed = [name for name in options.only if name not in OWN]
    peers = (options.peers or find_peers()) if needed else ""
    with tempfile.TemporaryDirectory() as folder:
        image, mask = write_shards(Path(folder) / "shards", options.samples)
        if "reference" in needed:
            write_files(Path(folder) / "files", options.samples)
        arguments = [folder, *(str(getattr(options, name)) for name in ("samples", "batch", "workers", "crop"))]
        running = {n: Contender(n, sys.executable if n in OWN else peers, arguments) for n in options.only}
        able = {name: contender for name, contender in running.items() if not contender.error}
        for number in range(options.rounds):
            turned = list(able.values())
            for contender in turned[number % len(turned) :] + turned[: number % len(turned)]:
                contender.run()
            print(f"round {number + 1} of {options.rounds}", file=sys.stderr, flush=True)
        for contender in running.values():
            contender.close()
    print(
        f"{options.samples} samples of {image / 1e3:.0f} KB JPEG and {mask / 1e3:.1f} KB mask, batches of "
        f"{options.batch}, {options.workers} processes, crop {options.crop}; medians of {options.rounds} rounds\n"
    )
    print(
        "| | images/s (slowest to fastest round) | processor ms an image | ours faster by | by processor | to reach |"
    )
    print("|---|---|---|---|---|---|")
    for name in options.only:
        title, least = CONTENDERS[name]
        if name not in able:
            print(f"| {title} | could not run: {running[name].error} | | | | {least or ''} |")
            continue
        rates, processor = able[name].rates, able[name].processor
        told = f"| {title} | {statistics.median(rates):,.0f} ({min(rates):,.0f} to {max(rates):,.0f}) "
        told += f"| {statistics.median(processor):.2f} ({min(processor):.2f} to {max(processor):.2f}) "
        if least is None or "hotrain" not in able:
            print(told + "| | | |")
            continue
        own = able["hotrain"]
        faster = _ratio([mine / other for mine, other in zip(own.rates, rates, strict=True)])
        cheaper = _ratio([other / mine for mine, other in zip(own.processor, processor, strict=True)])
        print(told + f"| {faster} | {cheaper} | {least} |")
    return 0 if "hotrain" in able else 1


if __name__ == "__main__":
    raise SystemExit(main())
