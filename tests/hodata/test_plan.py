"""Plans: the probe that stops a build before its first byte, and the records it is given."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import pytest

from hodata.build import BuildOptions, build
from hodata.errors import SourceError
from hodata.plan import PROBED, make_plan, spread
from hodata.sample import Record
from hodata.sources.freihand import FreiHand


def records(counts: dict[str, int]) -> list[Record]:
    return [
        Record(key=f"{name}-{n}", group=name, subset="", image=f"{name}/{n}.jpg", sequence=name)
        for name, count in counts.items()
        for n in range(count)
    ]


def test_spread_takes_one_of_every_recording_before_a_second_of_any() -> None:
    many = records({"a": 500, "b": 3, "c": 40})
    chosen = spread(many, 10)
    assert len(chosen) == len({record.key for record in chosen}) == 10
    assert {record.sequence for record in chosen[:3]} == {"a", "b", "c"}
    assert sorted(record.sequence for record in chosen).count("b") == 3, "the small one is exhausted, not more"
    assert spread(many[::-1], 10) == chosen, "the listing order does not matter"
    assert len(spread(many, 10_000)) == len(many)


def test_a_failed_probe_stops_before_the_first_byte(
    freihand_root: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked: list[Sequence[Record]] = []

    def probe(self: FreiHand, records: Sequence[Record]) -> list[str]:
        asked.append(records)
        raise SourceError("joints are 14.2 mm away")

    monkeypatch.setattr(FreiHand, "probe", probe)
    with pytest.raises(SourceError, match=r"14\.2 mm"):
        build(FreiHand(freihand_root), tmp_path / "out", BuildOptions("freihand"))
    assert not (tmp_path / "out").exists()
    assert 0 < len(asked[0]) <= PROBED


def test_what_a_probe_measured_is_told_with_the_plan(freihand_root: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    order: list[str] = []
    monkeypatch.setattr(FreiHand, "prepare", lambda self, progress: order.append("prepare"))
    monkeypatch.setattr(FreiHand, "probe", lambda self, records: ["median residual 0.2 mm"])
    scan = FreiHand.scan
    monkeypatch.setattr(FreiHand, "scan", lambda self: (order.append("scan"), scan(self))[1])
    assert "median residual 0.2 mm" in make_plan(FreiHand(freihand_root), BuildOptions("freihand")).notes
    assert order == ["prepare", "scan"]
