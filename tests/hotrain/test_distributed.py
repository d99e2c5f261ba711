"""Several processes of one machine through torch's own launcher, on the CPU."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
import torch

from hotrain import distributed
from hotrain.cli import main
from hotrain.errors import Interrupted, TrainingError


def work(out: str, ending: str) -> None:
    """What each process does: sum the ranks, share buffers, then end as told."""
    device = distributed.join_group("cpu")
    rank = distributed.rank()
    model = torch.nn.BatchNorm1d(2)
    assert model.running_mean is not None
    model.running_mean.fill_(float(rank + 5))
    distributed.share_buffers(model)
    total = distributed.all_reduce_sum(torch.tensor([rank + 1, 10]))
    facts = {
        "total": total.tolist(),
        "world": distributed.world_size(),
        "mean": model.running_mean.tolist(),
        "main": distributed.is_main(),
        "device": str(device),
    }
    (Path(out) / f"{rank}.json").write_text(json.dumps(facts))
    distributed.barrier()
    distributed.leave_group()
    if ending == "interrupted":
        raise Interrupted("somewhere")
    if ending == "error":
        raise TrainingError("nothing works")


_PROGRAM = """
import sys
from test_distributed import work
from hotrain.distributed import launch
if __name__ == "__main__":
    launch(work, (sys.argv[1], sys.argv[2]), 2)
"""


@pytest.mark.parametrize(("ending", "code"), [("interrupted", 75), ("error", 1)])
def test_launch(tmp_path: Path, ending: str, code: int) -> None:
    program = tmp_path / "program.py"
    program.write_text(_PROGRAM)
    done = subprocess.run(
        [sys.executable, str(program), str(tmp_path), ending],
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
        env={**os.environ, "OMP_NUM_THREADS": "1", "PYTHONPATH": str(Path(__file__).parent)},
    )
    assert done.returncode == code, done.stderr[-3000:]
    facts = [json.loads((tmp_path / f"{rank}.json").read_text()) for rank in (0, 1)]
    assert [fact.pop("main") for fact in facts] == [True, False]
    assert facts[0] == facts[1] == {"total": [3, 20], "world": 2, "mean": [5.0, 5.0], "device": "cpu"}
    if ending == "error":
        assert "nothing works" in done.stderr


def test_alone_everything_is_the_identity() -> None:
    values = torch.tensor([1, 2])
    assert distributed.all_reduce_sum(values).tolist() == [1, 2]
    assert (distributed.rank(), distributed.world_size(), distributed.is_main()) == (0, 1, True)
    distributed.barrier()


FULL = "CUDA out of memory. Tried to allocate 2.00 GiB. GPU 0 has a total capacity of 79.18 GiB of which 1 MiB is free"


def _full() -> None:
    raise torch.OutOfMemoryError(FULL)


@pytest.mark.parametrize("rank", [None, "3"])
def test_a_full_gpu_is_told_with_what_to_do(
    rank: str | None, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    if rank:
        monkeypatch.setenv("RANK", rank)
    with pytest.raises(SystemExit) as stopped:
        distributed._in_child(_full, ()) if rank else main(_full)
    found = capfd.readouterr().err
    assert stopped.value.code == 1
    assert found.startswith(
        f"error{' (rank 3)' if rank else ''}: CUDA out of memory. Tried to allocate 2.00 GiB. In fit"
    )
    assert "--accumulation" in found and found.count("\n") == 1


def test_other_errors_keep_their_traceback() -> None:
    def broken() -> None:
        raise RuntimeError("CUDA error: an illegal memory access was encountered")

    with pytest.raises(RuntimeError, match="illegal"):
        main(broken)
    with pytest.raises(RuntimeError, match="illegal"):
        distributed._in_child(broken, ())


def test_one_process_is_this_one() -> None:
    seen: list[int] = []
    distributed.launch(lambda value: seen.append(value + os.getpid()), (0,), 1)
    assert seen == [os.getpid()]


def test_processes_wanted(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 4)
    assert [distributed.processes_wanted(device) for device in ("auto", "cuda", "cuda:1", "cpu")] == [4, 4, 1, 1]
    monkeypatch.setenv("RANK", "0")
    monkeypatch.setenv("WORLD_SIZE", "2")
    assert distributed.processes_wanted("auto") == 1


@pytest.mark.parametrize(("device", "count"), [("cuda", 0), ("cuda:1", 1)])
def test_a_gpu_that_is_not_there_is_named(device: str, count: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.cuda, "device_count", lambda: count)
    with pytest.raises(TrainingError, match=f"--device cuda:{count}: torch sees {count} CUDA GPUs here"):
        distributed.join_group(device)


@pytest.mark.parametrize("device", ["mps", "gpu", "cuda:", "cuda0", ""])
def test_a_device_that_is_none_does_not_train_on_the_cpu(device: str) -> None:
    with pytest.raises(TrainingError, match="expected auto, cpu, cuda or cuda:N"):
        distributed.join_group(device)
