"""What every dataset source offers: detect, scan, load, and its facts."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import ClassVar

from hodata.errors import SourceError
from hodata.labels import Meaning
from hodata.sample import Record, Sample


@dataclass(frozen=True)
class Detection:
    """Whether a folder holds a dataset: `matched`, and for people the evidence or what was missing; which version, and
    below the folder the files that a search has found, so that it need not be made twice."""

    matched: bool
    reason: str
    version: str = ""
    files: tuple[str, ...] = ()


@dataclass(frozen=True)
class LeftOut:
    """Something that a build does not contain, and why; listed in the manifest and on the screen."""

    what: str
    why: str


@dataclass
class Scan:
    """What a scan found. `left_out` names what the raw folder lacks or what cannot be used, sorted."""

    records: list[Record]
    left_out: list[LeftOut] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)


@dataclass(frozen=True)
class SplitRules:
    """How a dataset's own subsets become train, val and test (DESIGN section 5).

    Args:
        official: the dataset's own word -> train, val or test, as its authors published it.
        clean_test: subsets made of whole recordings, which stay the test set under `clean`.
        clean_val: the same for the validation set; what of them also trains does not validate. Empty: it is drawn.
        redraw_test: under `clean`, draw test groups from the rest as well (EgoHOS, whose in-domain test is a random
            sample of the training videos' frames).
    """

    official: Mapping[str, str]
    clean_test: frozenset[str] = frozenset()
    clean_val: frozenset[str] = frozenset()
    redraw_test: bool = False


# The words for a split that are anybody's, in lower case; where data name their own splits these are known.
SPLIT_WORDS: Mapping[str, str] = {
    **dict.fromkeys(("train", "training"), "train"),
    **dict.fromkeys(("val", "valid", "validation", "dev"), "val"),
    **dict.fromkeys(("test", "testing"), "test"),
}


class Source(ABC):
    """One dataset as its authors ship it. Quirks of a dataset live in its class and nowhere else.

    A source is made in the parent process and pickled to the workers: keep its state small (paths, options).

    Args:
        root: the dataset's folder.

    Raises:
        SourceError: `root` is not this dataset; the message names the file that was missed.
    """

    name: ClassVar[str]
    title: ClassVar[str]
    licence: str
    citation: str
    url: str = ""
    version: str = ""
    option_names: ClassVar[frozenset[str]] = frozenset()  # keyword arguments of the class that a user may give

    def __init__(self, root: Path) -> None:
        self.root = Path(root)
        self.detection = self.detect(self.root)
        if not self.detection.matched:
            raise SourceError(f"{self.root}: is not {self.title}: {self.detection.reason}")

    @property
    def default_name(self) -> str:
        """The build's name where the user gives none; `[a-z0-9_]+`."""
        return self.name

    @classmethod
    @abstractmethod
    def detect(cls, root: Path) -> Detection:
        """Look at a few names under `root`; never decode anything. Never raises on a wrong folder."""

    @property
    @abstractmethod
    def meanings(self) -> tuple[Meaning, ...]:
        """The meanings that this source's samples refer to by name."""

    @property
    @abstractmethod
    def split_rules(self) -> SplitRules: ...

    def prepare(self, progress: Callable[[int, int], None] | None = None) -> None:  # noqa: B027 - most have no tables
        """Before the scan: turn big tables once into files that every worker maps.

        Args:
            progress: called with (megabytes done, megabytes in all) where that takes long.

        Raises:
            SourceError: a table is damaged, or there is no room for the files.
        """

    def probe(self, records: Sequence[Record]) -> list[str]:
        """Before the first shard: prove on some records that this folder is read the way its authors meant it.

        Args:
            records: spread over the recordings of the build.

        Returns:
            notes for people: what was measured.

        Raises:
            SourceError: the annotations contradict each other; the message has the residual and its likely cause.
        """
        return []

    @abstractmethod
    def scan(self) -> Scan:
        """List every sample, in any order, without decoding an image."""

    @abstractmethod
    def load(self, record: Record) -> Sample:
        """Read one sample.

        Raises:
            SampleError: a file is missing, damaged, or contradicts another one.
        """

    def options(self) -> dict[str, str]:
        """What, besides the files, decides the result; part of the plan and shown in the manifest."""
        return {}


def files_with(folder: Path, *suffixes: str) -> Iterator[Path]:
    """Files directly in `folder` with one of the suffixes (case-insensitive), sorted by name; hidden ones skipped."""
    if folder.is_dir():
        for path in sorted(folder.iterdir()):
            if path.suffix.lower() in suffixes and not path.name.startswith("."):
                yield path
