"""What every test may use: a tiny dataset in its authors' layout, and nothing of the user's."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from tiny_freihand import write_freihand

SAMPLES = Path(__file__).resolve().parent.parent.parent / "shared" / "samples"


@pytest.fixture(scope="session", autouse=True)
def no_files_of_the_user(tmp_path_factory: pytest.TempPathFactory) -> Iterator[None]:
    """Copies of tables go to a folder of this run, and no dataset or hand model of the user is found."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("HODATA_CACHE", str(tmp_path_factory.mktemp("cache")))
        patch.delenv("HODATA_ROOT", raising=False)
        yield


@pytest.fixture(scope="session", autouse=True)
def damage_is_read_again_at_once() -> Iterator[None]:
    """Tests damage shards by the hundred, and what they write is on no network disk."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("hodata.shards.reader.PAUSES", (0.0, 0.0, 0.0))
        yield


@pytest.fixture
def freihand_root(tmp_path: Path) -> Path:
    """12 bases in 6 instants of two views, 4 versions each, and 3 evaluation pictures."""
    return write_freihand(tmp_path / "freihand", bases=12, evaluation=3, views=2)


@pytest.fixture
def make_freihand(tmp_path: Path) -> Callable[..., Path]:
    """`write_freihand` into a folder of this test."""

    def make(name: str = "freihand", **options: int) -> Path:
        return write_freihand(tmp_path / name, **options)

    return make


@pytest.fixture(scope="session")
def samples() -> Path:
    """The folder of real samples; tests that need it are skipped where it is absent."""
    if not SAMPLES.is_dir():
        pytest.skip("no folder of real samples here")
    return SAMPLES
