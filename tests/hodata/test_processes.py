"""Worker processes: never left behind, their death told in words, nothing begun after a failure."""

from __future__ import annotations

import os
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import pytest

from hodata.errors import HodataError
from hodata.processes import processors, spawned


def test_a_worker_that_dies_is_said_to_have_with_what_to_do() -> None:
    with pytest.raises(HodataError, match=r"a worker process died.*; lower it$"), spawned(1, "lower it") as pool:
        pool.submit(os._exit, 9).result()


def test_what_had_not_begun_is_cancelled_when_the_block_fails(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="as it is"), spawned(1, "") as pool:
        pool.submit(int, 1).result()  # the worker is there
        pool.submit(time.sleep, 1.0)
        for number in range(20):
            pool.submit((tmp_path / str(number)).touch)
        raise ValueError("as it is")
    assert len(list(tmp_path.iterdir())) < 4, "those that the pool had handed over"


def test_workers_start_with_what_they_are_given(tmp_path: Path) -> None:
    with spawned(1, "", os.chdir, (tmp_path,)) as pool:
        assert pool.submit(os.getcwd).result() == str(tmp_path.resolve())


def test_processors_are_those_of_this_process(monkeypatch: pytest.MonkeyPatch) -> None:
    if hasattr(os, "sched_getaffinity"):
        assert processors() == len(os.sched_getaffinity(0))
        monkeypatch.delattr(os, "sched_getaffinity")  # as on macOS and Windows
    assert processors() == os.cpu_count()


def test_workers_die_with_a_killed_parent(tmp_path: Path) -> None:
    program = tmp_path / "program.py"
    program.write_text(
        "import os, sys, time\n"
        "from pathlib import Path\n"
        "from hodata.processes import spawned\n"
        "def work(path):\n    Path(path).write_text(f'{os.getpid()}\\n')\n    time.sleep(60)\n"
        "if __name__ == '__main__':\n"
        "    with spawned(1, '') as pool:\n        pool.submit(work, sys.argv[1]).result()\n"
    )

    def until(done: Callable[[], bool]) -> bool:
        deadline = time.monotonic() + 20
        while not done() and time.monotonic() < deadline:
            time.sleep(0.05)
        return done()

    note = tmp_path / "pid"
    process = subprocess.Popen([sys.executable, str(program), str(note)], stderr=subprocess.DEVNULL)
    assert until(lambda: note.exists() and note.read_text().endswith("\n"))
    status = Path(f"/proc/{note.read_text().strip()}/stat")
    process.kill()
    process.wait()
    assert until(lambda: not status.exists() or status.read_text().rpartition(")")[2].split()[0] == "Z")
