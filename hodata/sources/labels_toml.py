"""`labels.toml`: how a person tells `folder` and `coco` what their own masks mean.

    name = "kitchen"                  # names the source, its groups and, where it is spelled out, its meaning
    group = '^(cam\\d+)_'             # regular expression on the file's path without extension: its recording
    meaning = "hand-wrist"            # a named meaning, or a table [meaning] of label -> labels it may be
    split = '^(train|val|test)/'      # optional: what the first (...) matches; or a table [split] of patterns
    [ids]                             # folder: value in the mask -> label
    [categories]                      # coco: category -> label

The file may come with somebody else's data: everything is checked, and every error says what would be right.
"""

from __future__ import annotations

import re
import tomllib
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from hodata.errors import SourceError
from hodata.labels import LABELS, MEANINGS, Label, Meaning, label_from_name, parse_sets
from hodata.sources.base import SPLIT_WORDS, SplitRules

FILE = "labels.toml"
EACH = "each"
_MAX_BYTES = 2**20
_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,63}")
_ORIGINS = ("human", "polygon", "chroma", "rendered")
_TEXTS = ("licence", "citation", "url")
_KNOWN = frozenset(
    ("name", "group", "meaning", "split", "ids", "categories", "threshold", "empty", "mask_origin", "view", *_TEXTS)
)


@dataclass(frozen=True)
class LabelsFile:
    """A checked `labels.toml`.

    Args:
        name: of the source.
        ids: value in a mask -> label (`folder`).
        categories: category -> label (`coco`).
        meaning: what the labels may truly be.
        group: pattern whose (...) parts, joined by `_`, name a stem's recording; None: each image is its own.
        splits: (subset, pattern) in the file's order; a subset of "" means: what the pattern's (...) matches.
        threshold: masks are black and white, values from here on count as white; 0: they are taken as they are.
        empty: what an image without annotations is: "" (not said), `background` or `skip`.
    """

    path: Path
    name: str
    ids: Mapping[int, Label]
    categories: Mapping[str, Label]
    meaning: Meaning
    group: re.Pattern[str] | None
    splits: tuple[tuple[str, re.Pattern[str]], ...] = ()
    threshold: int = 0
    empty: str = ""
    mask_origin: str = ""
    view: str = ""
    licence: str = ""
    citation: str = ""
    url: str = ""

    @property
    def build_name(self) -> str:
        """`name` in the letters that file prefixes and keys allow: `[a-z0-9_]+`."""
        return re.sub(r"[^a-z0-9]+", "_", self.name.lower()).strip("_")

    def group_of(self, stem: str) -> str | None:
        """`<name>/<recording>` of a file's path without extension; None where the pattern does not match."""
        recording = self.recording_of(stem)
        return None if recording is None else f"{self.name}/{recording}"

    def recording_of(self, stem: str) -> str | None:
        """The recording's own name: what the pattern's (...) parts match, or all it matches, or the stem itself."""
        if self.group is None:
            return stem
        match = self.group.search(stem)
        if match is None:
            return None
        parts = match.groups() if self.group.groups else (match[0],)
        return "_".join(part or "" for part in parts) or None

    def subset_of(self, stem: str) -> str:
        """The subset that the file's own split patterns name: a word that `split_rules` knows, or ""."""
        for subset, pattern in self.splits:
            match = pattern.search(stem)
            if match is None:
                continue
            if subset:
                return subset
            word = str((match[1] if pattern.groups else match[0]) or "").lower()
            return word if word in SPLIT_WORDS else ""
        return ""

    @property
    def split_rules(self) -> SplitRules:
        """For subsets named train, val, validation, test and the like; test and val subsets of one's own stay what they
        are, but for tests whose masks a model drew: those never judge a model."""
        tests, vals = (
            frozenset(word for word, each in SPLIT_WORDS.items() if each == split) for split in ("test", "val")
        )
        if self.mask_origin.startswith("model"):
            tests = frozenset()
        return SplitRules(official=SPLIT_WORDS, clean_test=tests, clean_val=vals)


def read_labels(path: Path, *, table: str) -> LabelsFile:
    """Read and check a `labels.toml`.

    Args:
        path: the file.
        table: `ids` or `categories`: the one that this source needs.

    Raises:
        SourceError: unreadable, or something is missing, unknown or contradictory; says what to write instead.
    """
    content = _parse(path)
    unknown = sorted(set(content) - _KNOWN)
    if unknown:
        raise SourceError(f"{path}: unknown setting {', '.join(unknown)}; known: {', '.join(sorted(_KNOWN))}")
    name = _text(content, "name", path)
    if not _NAME.fullmatch(name):
        raise SourceError(
            f'{path}: `name` must be 1 to 64 letters, digits, ".", "_" or "-" (found {name!r}); '
            'it names the source and its groups: name = "kitchen"'
        )
    ids = _ids(content, path) if table == "ids" else {}
    return LabelsFile(
        path=path,
        name=name,
        ids=ids,
        categories=_labels(content, "categories", path) if table == "categories" else {},
        meaning=_meaning(content, name, path),
        group=_group(content, path),
        splits=_splits(content, path),
        threshold=_threshold(content, ids, path),
        empty=_choice(content, "empty", ("", "background", "skip"), path),
        mask_origin=_origin(content, path),
        view=_choice(content, "view", ("", "ego", "exo"), path),
        **{field: _text(content, field, path) for field in _TEXTS},
    )


def named_meanings() -> str:
    """The meanings one can name, a line each."""
    return "\n".join(f'  meaning = "{meaning.name}"   # {meaning.description}' for meaning in MEANINGS.values())


def label_names() -> str:
    return ", ".join(label.label_name for label in LABELS)


def _parse(path: Path) -> dict[str, Any]:
    try:
        if path.stat().st_size > _MAX_BYTES:
            raise SourceError(f"{path}: is larger than {_MAX_BYTES:,} bytes; this is not a labels.toml")
        return tomllib.loads(path.read_text(encoding="utf-8"))
    except OSError as error:
        raise SourceError(f"{path}: cannot be read ({error.strerror or error})") from error
    except (tomllib.TOMLDecodeError, UnicodeDecodeError, RecursionError) as error:
        raise SourceError(
            f"{path}: is not valid TOML ({error}); patterns go in single quotes: group = '^(\\d+)_'"
        ) from error


def _text(content: Mapping[str, Any], field: str, path: Path) -> str:
    value = content.get(field, "")
    if not isinstance(value, str):
        raise SourceError(f"{path}: `{field}` must be a text in quotes, found {value!r}")
    return value


def _choice(content: Mapping[str, Any], field: str, choices: tuple[str, ...], path: Path) -> str:
    value = _text(content, field, path)
    if value not in choices:
        raise SourceError(f"{path}: `{field}` must be one of {', '.join(filter(None, choices))}, found {value!r}")
    return value


def _origin(content: Mapping[str, Any], path: Path) -> str:
    origin = _text(content, "mask_origin", path)
    if origin and origin not in _ORIGINS and not re.fullmatch(r"model:\S{1,200}", origin):
        raise SourceError(f'{path}: `mask_origin` must be {", ".join(_ORIGINS)} or "model:<which>", found {origin!r}')
    return origin


def _labels(content: Mapping[str, Any], field: str, path: Path) -> dict[str, Label]:
    table = content.get(field)
    if not isinstance(table, dict) or not table:
        example = '0 = "background"\n255 = "hand"' if field == "ids" else 'hand = "hand"\ncup = "object"'
        raise SourceError(f"{path}: needs a table\n[{field}]\n{example}\nlabels: {label_names()}")
    labels: dict[str, Label] = {}
    for key, name in table.items():
        if not isinstance(name, str):
            raise SourceError(f"{path}: [{field}] {key} must be the name of a label, found {name!r}")
        try:
            labels[key] = label_from_name(name)
        except ValueError as error:
            raise SourceError(f"{path}: [{field}] {key}: {error}") from error
    return labels


def _ids(content: Mapping[str, Any], path: Path) -> dict[int, Label]:
    ids: dict[int, Label] = {}
    for key, label in _labels(content, "ids", path).items():
        if not re.fullmatch(r"\d{1,3}", key, re.ASCII) or int(key) > 255:
            raise SourceError(f"{path}: [ids] {key!r} is not a value of an 8-bit mask (0 to 255)")
        if int(key) in ids:
            raise SourceError(f"{path}: [ids] {int(key)} is listed twice")
        ids[int(key)] = label
    return ids


def _meaning(content: Mapping[str, Any], name: str, path: Path) -> Meaning:
    value = content.get("meaning")
    if isinstance(value, str) and value in MEANINGS:
        return MEANINGS[value]
    if not isinstance(value, dict):
        what = "`meaning` is missing" if value is None else f"unknown meaning {value!r}"
        raise SourceError(
            f"{path}: {what}. Datasets draw hands differently (to the wrist, with the arm) and some never draw "
            f"objects; say what your masks mean, with one of\n{named_meanings()}\n"
            'or with a table: [meaning] and below it background = ["background", "object"] and so on'
        )
    if not all(isinstance(labels, str | list) for labels in value.values()):
        raise SourceError(f'{path}: [meaning] maps a label to a list of labels: hand = ["hand", "arm"]')
    try:
        sets = parse_sets(value)
    except (ValueError, AttributeError) as error:
        raise SourceError(f"{path}: [meaning]: {error}") from error
    words = "; ".join(
        f"{stored.label_name} may be {' or '.join(label.label_name for label in sorted(labels))}"
        for stored, labels in sorted(sets.items())
    )
    # A meaning's name stands for one definition wherever shards meet, so it cannot take a built-in one.
    return Meaning(name if name not in MEANINGS else f"{name}-own", words or "every id is what it says", sets)


def _group(content: Mapping[str, Any], path: Path) -> re.Pattern[str] | None:
    pattern = _text(content, "group", path)
    if pattern == EACH:
        return None
    if not pattern:
        raise SourceError(
            f"{path}: `group` is missing. Frames of one recording look alike: if some train and others test, the "
            "score says nothing about new recordings. Give a pattern that finds the recording in the file's path "
            f"without extension, such as group = '^(\\d+)_', or group = \"{EACH}\" if every image really is a "
            "recording of its own"
        )
    return _pattern(pattern, "group", path)


def _splits(content: Mapping[str, Any], path: Path) -> tuple[tuple[str, re.Pattern[str]], ...]:
    value = content.get("split")
    if value is None:
        return ()
    if isinstance(value, str):
        return (("", _pattern(value, "split", path)),)
    if not isinstance(value, dict) or not value or not all(isinstance(item, str) for item in value.values()):
        raise SourceError(
            f"{path}: `split` must be a pattern whose (...) finds train, val or test, or a table [split] with a "
            "pattern for each of them: test = '^kitchen3_'"
        )
    unknown = sorted(set(value) - {"train", "val", "test"})
    if unknown:
        raise SourceError(f"{path}: [split] knows train, val and test, found {', '.join(unknown)}")
    return tuple((subset, _pattern(pattern, f"split.{subset}", path)) for subset, pattern in value.items())


def _pattern(pattern: str, field: str, path: Path) -> re.Pattern[str]:
    try:
        return re.compile(pattern)
    except (re.error, RecursionError, OverflowError) as error:
        raise SourceError(f"{path}: `{field}` is not a regular expression ({error}): {pattern!r}") from error


def _threshold(content: Mapping[str, Any], ids: Mapping[int, Label], path: Path) -> int:
    value = content.get("threshold", 0)
    if isinstance(value, bool) or not isinstance(value, int) or not 0 <= value <= 255:
        raise SourceError(f"{path}: `threshold` must be a whole number from 1 to 255, found {value!r}")
    if value and (len(ids) != 2 or not min(ids) < value <= max(ids)):
        raise SourceError(
            f"{path}: `threshold` is for black and white masks: [ids] must list two values, one below {value} and "
            f"one from {value} on; it lists {', '.join(map(str, sorted(ids))) or 'none'}"
        )
    return value
