"""The model card: what it must say, that foreign words stay words, and that its facts are those of the data."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from drawn_shards import Spec
from hypothesis import example, given, settings
from hypothesis import strategies as st
from markdown_it import MarkdownIt
from PIL import Image

from hodata.build import BuildOptions, build
from hodata.labels import MEANINGS, Label
from hodata.shards.reader import ShardIndex
from hodata.sources.folder import Folder
from hotrain import checkpoint
from hotrain.config import MODELS, FitConfig
from hotrain.fit import fit
from hotrain.input_rule import InputRule
from hotrain.learning.card_facts import STRIDES, dataset_words, hand_sizes
from hotrain.learning.model_card import CARD, CardDataset, CardFacts, CardScore, CardSource, model_card, text
from hotrain.model import create_model

READER = MarkdownIt("commonmark").enable("table")
MODEL = "lraspp_mobilenet_v3_large"


def facts(word: str = "word", **changes: Any) -> CardFacts:
    """Plain facts, with `word` wherever a manifest, an index or a run has a say."""
    source = CardSource(word, 1200, 7, [(word, word)], [word], [word], ["object"], (12.0, 34.0, 56.0))
    made = CardFacts(
        task="hand-object",
        model="deeplabv3_resnet50",
        classes=("background", "hand", "object"),
        arms=True,
        input_rule="the shorter side is scaled to 480 pixels.",
        stride=8,
        samples_seen=9600,
        start=word,
        open_labels="sets",
        sides=(0.01, 0.9, 0.09),
        sources=[source],
        datasets=[CardDataset(word, word, "", word, word)],
        scores=[
            CardScore("", 40, "mixed", {"hand": 0.8, "object": None}, 0.9),
            CardScore(word, 40, word, {"hand": 0.4}, None),
        ],
        calibration=(1.5, 0.1, 0.02),
        versions={"torch": word},
        data_hash=word,
    )
    return dataclasses.replace(made, **changes)


def structure(markdown: str) -> list[str]:
    """What Markdown reads: the kinds of its blocks and inline parts, without the text."""
    kinds = []
    for token in READER.parse(markdown):
        kinds.append(token.type)
        kinds += [child.type for child in token.children or [] if child.type != "text_special"]
    return kinds


HOSTILE = ["| a | b |", "# h", "a\n\n# h\n\n- x", "<script>alert(1)</script>", "[x](http://e)", "![x](y)", "`c`"]
HOSTILE += ["**b**", "https://evil.example", "www.evil.example", "&lt;", "\\", "- [ ] x", "---", "+ x", "> q", "1. x"]


@settings(max_examples=150, deadline=None)
@given(st.text(min_size=1, max_size=40).filter(str.strip))
def test_foreign_words_stay_words(word: str) -> None:
    shown = text(word)
    if not shown:  # nothing of it can be printed
        return
    assert structure(model_card(facts(word))) == structure(model_card(facts("word")))
    read = READER.parse(f"a {shown}")[1].children or []
    plain = " ".join("".join(c if c.isprintable() else " " for c in word).split())
    assert "".join(child.content for child in read) == f"a {plain}"


for _hostile in HOSTILE:
    test_foreign_words_stay_words = example(_hostile)(test_foreign_words_stay_words)


def test_a_long_word_is_cut_and_addresses_are_no_links() -> None:
    assert len(text("x" * 10**6)) < 1100
    assert "s://" not in text("see https://evil.example") and "www." not in text("see WWW.evil.example").lower()
    strange = [CardDataset("a", url="javascript:alert(1)"), CardDataset("b", url="https://e.example/x> <b")]
    assert "javascript" not in model_card(facts(datasets=strange)) and "<b" not in model_card(facts(datasets=strange))
    assert "<https://e.example/a?b=1>" in model_card(facts(datasets=[CardDataset("a", url="https://e.example/a?b=1")]))


def test_words_of_a_manifest_stand_where_they_belong(tmp_path: Path) -> None:
    """Of shards that were built: title, address, licence and citation, each by its own words."""
    root = tmp_path / "kitchen"
    for folder in ("images", "masks"):
        (root / folder).mkdir(parents=True)
        Image.new("RGB" if folder == "images" else "L", (20, 16)).save(root / folder / "r1_1.png")
    (root / "labels.toml").write_text(
        'name = "kitchen"\ngroup = "^(r1)"\nmeaning = "exact"\nlicence = "to look at"\ncitation = "Doe, 2020"\n'
        'url = "https://kitchen.example"\n[ids]\n0 = "background"\n'
    )
    build(Folder(root), tmp_path / "shards", BuildOptions("kitchen"))
    words = dataset_words(ShardIndex.open(tmp_path / "shards"), ["kitchen", "nobody"])
    assert words == {
        "kitchen": {
            "title": "a folder of images and masks",
            "url": "https://kitchen.example",
            "licence": "to look at",
            "citation": "Doe, 2020",
        },
        "nobody": {},
    }
    card = model_card(facts(datasets=[CardDataset(name, **of) for name, of in words.items()]))
    title = text("a folder of images and masks")
    assert f"- kitchen ({title}, in an earlier stage) <https://kitchen.example>: to look at. Cite: Doe, 2020" in card


def test_what_a_card_says() -> None:
    card = model_card(facts())
    for words in (
        "1,200", "9,600", "12 to 56, median 34", "| all pixels | 40 | mixed | 0.800 | n/a | 0.900 |",
        "temperature 1.50",
        "Of the hand pixels whose side is labelled, 1% are left hands", "word never says what is object",
        "No source says what is object", "Hand in word: IoU 0.400", "hotrain.load", "licence",
    ):  # fmt: skip
        assert words in card, words
    unscored = model_card(facts(scores=[], calibration=None, arms=False))
    assert "nothing was measured" in unscored and "not calibrated" in unscored and "Arms are called hand" in unscored


@pytest.mark.parametrize("name", MODELS)
def test_the_stride_is_the_network_s(name: str) -> None:
    model = create_model(name, 4).eval()
    seen: list[int] = []
    model.classifier.register_forward_hook(lambda module, inputs, output: seen.append(output.shape[-1]))
    with torch.inference_mode():
        model(torch.zeros(1, 3, 64, 64))
    assert 64 // seen[0] == STRIDES.get(name, 8)


def test_sizes_of_hands_are_those_of_the_masks(opened: Callable[..., ShardIndex]) -> None:
    index = opened(Spec("a", samples=9, size=(96, 48)))
    rows = index.select()
    sizes = []
    for row in rows.tolist():
        ys, xs = np.nonzero(index.reader().mask(row) == Label.HAND)
        sizes.append(max((np.ptp(xs) + 1) * 32 / 96, (np.ptp(ys) + 1) * 32 / 48))
    assert hand_sizes(index, rows, InputRule(32, "squash")) == pytest.approx(np.percentile(sizes, (10, 50, 90)))
    assert hand_sizes(index, rows[:0], InputRule(32)) is None


def test_a_run_writes_it_beside_its_best_weights(opened: Callable[..., ShardIndex], tmp_path: Path) -> None:
    """And a run that starts from it names the data of both."""
    torch.set_num_threads(1)
    index = opened(Spec("first"), Spec("first", "val", samples=2, group="v"), Spec("second", meaning="hand-wrist"))
    shards = (str(index.shards[0].parent),)
    options: dict[str, Any] = {
        "model": MODEL, "weights": "none", "epochs": 2, "samples_per_epoch": 4, "crop": 32, "batch_size": 2,
        "workers": 0, "device": "cpu",
    }  # fmt: skip
    fit(FitConfig(shards, str(tmp_path / "one"), where="source = 'first'", **options))
    best = checkpoint.find(tmp_path / "one")
    card = (best.path / CARD).read_text()
    assert "| first | 6 | 2 | exact" in card and "second" not in card and "calibrated on validation" in card
    score = checkpoint.best_score(tmp_path / "one")
    assert score is not None and f"| all pixels | 2 | wrist | {score['kinds']['hand']:.3f} |" in card
    options |= {"task": "hand-object", "where": "source = 'second'", "init": str(best.path), "open_labels": "as-drawn"}
    fit(FitConfig(shards, str(tmp_path / "two"), **options))
    card = (checkpoint.find(tmp_path / "two").path / CARD).read_text()
    assert "- first (untitled, in an earlier stage)" in card and "- second (untitled)" in card
    assert text(MEANINGS["hand-wrist"].description) in card and "as they were drawn" in card
    assert "no split val" in card and "Arms are called hand" in card
