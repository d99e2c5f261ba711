"""The command line: exit codes, JSON, where messages go, and a fast start without torch."""

from __future__ import annotations

import json
import os
import shlex
import shutil
import signal
import statistics
import subprocess
import sys
import time
from pathlib import Path

import click
import pytest
from PIL import Image

from hodata import cli, cli_shards
from hodata.labels import MEANINGS
from hodata.sources import SOURCE_NAMES
from hodata.synth import miniatures


def run(capsys: pytest.CaptureFixture[str], *args: object) -> tuple[int, str, str]:
    """Exit code, stdout and stderr of one `hodata` command."""
    argv, sys.argv = sys.argv, ["hodata", *map(str, args)]
    try:
        cli.main()
        code = 0
    except SystemExit as stop:
        code = int(stop.code or 0)
    finally:
        sys.argv = argv
    out, err = capsys.readouterr()
    return code, out, err


def test_the_whole_path_from_raw_files_to_a_verified_shard(
    freihand_root: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    out = tmp_path / "shards"
    code, text, messages = run(capsys, "build", "--source", "freihand", "--root", freihand_root, "--out", out)
    assert code == 0
    assert text.startswith("freihand: train ")
    assert "next: hodata inspect" in messages
    code, text, _ = run(capsys, "inspect", out, "--json")
    summary = json.loads(text)
    assert (code, summary["samples"], summary["sources"]["freihand"]["samples"]) == (0, 51, 51)
    assert summary["labels"]["right_hand"]["samples"] == 51
    code, text, _ = run(capsys, "verify", out, "--full", "--json")
    counts = {"samples": 51, "decoded": 51, "shards": len(list(out.glob("*.tar"))), "foreign": 0}
    assert (code, json.loads(text)) == (0, {"ok": True, **counts, "problems": []})


def test_skipped_input_exits_3_and_is_listed(
    freihand_root: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (freihand_root / "training/rgb/00000003.jpg").write_bytes(b"no picture")
    command = ("build", "--source", "freihand", "--root", freihand_root, "--out", tmp_path / "o")
    code, text, messages = run(capsys, *command)
    assert (code, text) == (1, "")
    assert "error: training/rgb/00000003.jpg: cannot be decoded" in messages
    assert "Traceback" not in messages
    code, _, messages = run(capsys, *command, "--on-error", "skip")
    assert code == 3
    assert "left out: 1\n  training/rgb/00000003.jpg: cannot be decoded" in messages
    code, text, _ = run(capsys, *command, "--on-error", "skip", "--json")
    assert code == 3
    assert json.loads(text)["reused_shards"] == json.loads(text)["shards"]


def test_dry_run_writes_nothing(freihand_root: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    command = ("build", "--source", "freihand", "--root", freihand_root, "--out", tmp_path / "o", "--dry-run")
    code, text, _ = run(capsys, *command)
    assert code == 0
    assert "nothing was written" in text
    code, text, _ = run(capsys, *command, "--json")
    assert sum(shard["samples"] for shard in json.loads(text)["shards"]) == 51
    assert not (tmp_path / "o").exists()


def test_detect_explains_every_format(freihand_root: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    code, text, _ = run(capsys, "detect", freihand_root)
    lines = text.splitlines()
    assert code == 0
    assert lines[0].startswith("yes  freihand")
    assert {line.split()[1] for line in lines} == set(SOURCE_NAMES)
    assert all(len(line.split(maxsplit=2)) == 3 for line in lines), "every format says why or why not"
    code, text, messages = run(capsys, "detect", tmp_path)
    assert code == 1
    assert f"but {freihand_root} is freihand" in messages
    code, _, messages = run(capsys, "detect", tmp_path / "nowhere")
    assert (code, "does not exist" in messages) == (1, True)


def test_wrong_usage_exits_2_and_errors_exit_1(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert run(capsys, "build", "--source", "freihand")[0] == 2
    assert run(capsys, "build", "--source", "imagenet", "--out", tmp_path)[0] == 2
    assert run(capsys, "paint")[0] == 2
    assert run(capsys, "build", "--source", "freihand", "--root", tmp_path / "no", "--out", tmp_path)[0] == 1
    code, _, messages = run(capsys, "inspect", tmp_path / "*.tar")
    assert code == 1
    assert "no .tar shard found" in messages
    Image.new("L", (3, 3)).save(tmp_path / "x.tar", "PNG")
    code, _, messages = run(capsys, "inspect", tmp_path)
    assert code == 1
    assert "has no x.index beside it" in messages


def test_several_datasets_below_the_root_are_not_chosen_from(
    freihand_root: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    command = ("build", "--source", "freihand", "--out", tmp_path / "o", "--dry-run", "--root")
    assert run(capsys, *command, tmp_path)[0] == 0
    code, _, messages = run(capsys, *command, freihand_root / "training")
    assert (code, f"--root {freihand_root}" in messages) == (1, True)
    shutil.copytree(freihand_root, tmp_path / "second")
    code, _, messages = run(capsys, *command, tmp_path)
    assert (code, "holds several; give one of them" in messages) == (1, True)


def test_max_errors_needs_skip(freihand_root: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    command = ("build", "--source", "freihand", "--root", freihand_root, "--out", tmp_path / "o", "--max-errors", 3)
    assert run(capsys, *command)[0] == 2
    assert run(capsys, *command, "--on-error", "skip")[0] == 0


def test_names_of_files_do_not_steer_the_terminal(
    freihand_root: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (freihand_root / "training/rgb/\x1b[2J\nleft out: 0.jpg").write_bytes(b"")
    code, _, messages = run(
        capsys, "build", "--source", "freihand", "--root", freihand_root, "--out", tmp_path / "o", "--workers", 1
    )
    assert code == 3
    assert "  training/rgb/?[2J?left out: 0.jpg: not a FreiHAND file number" in messages


def test_sigterm_stops_a_build_like_ctrl_c(freihand_root: Path, tmp_path: Path) -> None:
    program = (
        "import sys, time, hodata.shards.writer as w\n"
        "def slow(self):\n    print('there', flush=True); time.sleep(60)\n"
        "w.ShardWriter._commit = slow\n"
        "from hodata.cli import main\nmain()\n"
    )
    command = [sys.executable, "-c", program, "build", "--source", "freihand", "--root", str(freihand_root)]
    command += ["--out", str(tmp_path / "o"), "--workers", "1"]
    process = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
    assert process.stdout is not None
    assert process.stdout.readline() == "there\n"
    process.terminate()
    _, messages = process.communicate(timeout=30)
    assert (process.returncode, "run the same command again" in messages) == (cli.EXIT_INTERRUPTED, True)
    assert not list((tmp_path / "o").iterdir())


def drawing(out: Path, workers: int) -> subprocess.Popen[str]:
    """`hodata synth` amid its work, far from its end."""
    command = [sys.executable, "-m", "hodata.cli", "synth", "--out", str(out), "--source", "egohos"]
    command += ["--frames", "2000", "--workers", str(workers)]
    process = subprocess.Popen(command, stderr=subprocess.PIPE, text=True)
    deadline = time.monotonic() + 60
    while not list(out.glob(".egohos.partial/*/image/*")):
        assert process.poll() is None and time.monotonic() < deadline
        time.sleep(0.05)
    return process


def test_sigterm_stops_synth_and_leaves_nothing(tmp_path: Path) -> None:
    process = drawing(tmp_path, 1)
    process.terminate()
    _, messages = process.communicate(timeout=60)
    assert (process.returncode, "interrupted" in messages, "Traceback" in messages) == (1, True, False)
    assert not list(tmp_path.iterdir())


@pytest.mark.skipif(not Path("/proc/self/task").is_dir(), reason="asks Linux for the workers")
def test_a_killed_worker_of_synth_is_told_in_words(tmp_path: Path) -> None:
    process = drawing(tmp_path, 2)
    children = Path(f"/proc/{process.pid}/task/{process.pid}/children").read_text().split()
    workers = [pid for pid in children if b"spawn_main" in Path(f"/proc/{pid}/cmdline").read_bytes()]
    os.kill(int(workers[0]), signal.SIGKILL)
    _, messages = process.communicate(timeout=60)
    assert process.returncode == 1
    assert "error: a worker process died (killed, or out of memory); run the command again with fewer" in messages
    assert "Traceback" not in messages and not list(tmp_path.iterdir())


def test_what_synth_says_to_do_next_works_as_it_stands(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    out = tmp_path / "it's raw"
    out.mkdir()
    monkeypatch.setattr(miniatures, "write_miniatures", lambda out, names, *_: [(out / n).mkdir() for n in names])

    def commands(*sources: str) -> list[list[list[str]]]:
        _, text, _ = run(capsys, "synth", "--out", out, *(word for name in sources for word in ("--source", name)))
        parts = [line.partition("build it with  ")[2].split(" && ") for line in text.splitlines()]
        return [[shlex.split(command) for command in each] for each in parts]

    (alone,), (first, then) = commands("freihand", "ho3d")
    assert first == ["hodata", "synth", "--out", str(out), "--source", "mano", "--source", "ycb"]
    folders = ["--root", str(out / "ho3d"), "--mano", str(out / "mano"), "--ycb", str(out / "ycb")]
    build = ["hodata", "build", "--source", "ho3d", *folders, "--out", "shards/"]
    assert then == build
    assert alone == ["hodata", "build", "--source", "freihand", "--root", str(out / "freihand"), "--out", "shards/"]
    (out / "mano").mkdir()
    build[build.index(str(out / "ho3d"))] = str(out / "ho3d_v2")
    assert commands("ho3d_v2") == [[["hodata", "synth", "--out", str(out), "--source", "ycb"], build]]
    (out / "ho3d_v2").rmdir()
    assert commands("ho3d_v2", "ycb")[0] == [build]


def test_every_command_explains_itself(capsys: pytest.CaptureFixture[str]) -> None:
    for name, command in cli.cli.commands.items():
        code, text, _ = run(capsys, name, "--help")
        assert code == 0
        assert command.help
        assert all(option.help for option in command.params if isinstance(option, click.Option))
        assert text.startswith(f"Usage: hodata {name}")


def test_choices_of_the_command_line_are_the_registry() -> None:
    assert cli.SOURCES == SOURCE_NAMES
    assert cli.SYNTH_SOURCES == miniatures.SOURCES
    assert tuple(MEANINGS) == cli_shards.MEANINGS


def test_no_module_of_hodata_imports_torch() -> None:
    program = (
        "import sys, pkgutil, importlib, hodata\n"
        "for module in pkgutil.walk_packages(hodata.__path__, 'hodata.'): importlib.import_module(module.name)\n"
        "sys.exit('torch' in sys.modules)"
    )
    assert subprocess.run([sys.executable, "-c", program], timeout=120).returncode == 0


def test_help_answers_within_half_a_second_of_python_itself() -> None:
    def seconds(*command: str) -> float:
        times = []
        for _ in range(5):
            start = time.monotonic()
            subprocess.run([sys.executable, *command], check=True, stdout=subprocess.DEVNULL)
            times.append(time.monotonic() - start)
        return statistics.median(times)

    assert seconds("-m", "hodata.cli", "--help") - seconds("-c", "pass") < 0.5
