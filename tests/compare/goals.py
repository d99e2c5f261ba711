"""What must be reached, each with what was measured."""

from __future__ import annotations

from dataclasses import asdict, dataclass, replace
from typing import Any

from compare.paired import Estimate
from compare.results import (
    ARMS,
    AS_DRAWN,
    FLOOD,
    FLOOD_OBJECT,
    FLOOD_TRUTH,
    HAND_ARM,
    HAND_IOU,
    HAND_WRIST,
    IGNORE,
    OBJECT_IOU,
    OURS,
    TIPS,
    TUNED,
    Results,
)

POINTS = 0.05  # of object IoU above the tuned reference
ARM_SHARE = 0.05  # of arm pixels called hand
FLOOD_POINTS = 0.02  # above the truth's own share


@dataclass(frozen=True)
class Goal:
    """One line of the verdict, in words for people."""

    what: str
    needed: str
    measured: str
    met: bool

    def to_json(self) -> dict[str, Any]:
        return asdict(self)


def reference_goals(results: Results) -> list[Goal]:
    """Ours beside the tuned reference."""
    return [
        _better("object IoU, ours - tuned reference", results.difference(TUNED, OURS, OBJECT_IOU), POINTS, surely=True),
        _better("hand IoU, ours - tuned reference", results.difference(TUNED, OURS, HAND_IOU)),
        _better("fingertip recall, ours - tuned reference", results.difference(TUNED, OURS, TIPS)),
    ]


def label_goals(results: Results) -> list[Goal]:
    """What labels that leave something open teach; in the order of the report's tables."""
    found = [
        _better("object IoU, meaning - as drawn", results.difference(AS_DRAWN, OURS, OBJECT_IOU), surely=True),
        _better("object IoU, meaning - ignore", results.difference(IGNORE, OURS, OBJECT_IOU)),
        _better("hand IoU, meaning - ignore", results.difference(IGNORE, OURS, HAND_IOU)),
    ]
    for measure in (HAND_WRIST, HAND_ARM):
        found.append(_better(f"{measure.title}: arm class - arms merged", results.difference(AS_DRAWN, OURS, measure)))
        found.append(_better(f"{measure.title}: arm class - dropped", results.difference(IGNORE, OURS, measure)))
    called = results.value(OURS, ARMS).value
    found.append(_below("arm pixels called hand at extent wrist", called, ARM_SHARE))
    for source in results.hand_only:
        share, truth = (results.value(OURS, replace(one, source=source)).value for one in (FLOOD, FLOOD_TRUTH))
        flood = None if share is None or truth is None else share - truth
        found.append(_below(f"{source}: called object or arm, above the truth's share", flood, FLOOD_POINTS))
    there = results.difference(IGNORE, OURS, FLOOD_OBJECT)
    found.append(_better("hand-only pictures: object IoU, meaning - ignore", there))
    return found


def _better(what: str, found: Estimate, points: float = 0.0, surely: bool = False) -> Goal:
    """A difference of at least `points`; `surely`: its interval must lie above 0 as well, with two seeds or more."""
    needed = f"{f'at least {100 * points:+.1f}' if points else 'not below 0'}{', interval above 0' if surely else ''}"
    met = found.value is not None and found.value >= points
    if surely:
        met = met and found.interval is not None and found.interval[0] > 0 and len(found.by_seed) > 1
    return Goal(what, needed, shown(found), met)


def _below(what: str, found: float | None, limit: float) -> Goal:
    measured = "n/a" if found is None else f"{100 * found:.1f}"
    return Goal(what, f"at most {100 * limit:.1f}", measured, found is not None and found <= limit)


def shown(found: Estimate) -> str:
    """A difference in points with its interval."""
    if found.value is None:
        return "n/a"
    limits = f" ({100 * found.interval[0]:+.1f} to {100 * found.interval[1]:+.1f})" if found.interval else ""
    return f"{100 * found.value:+.1f}{limits}"
