"""MODEL_CARD.md: what a model is for, what it learnt from, whose data that was, and what is known of its faults.

Facts in, Markdown out; `hotrain.learning.card_facts` finds the facts. Words out of manifests are somebody else's: they
are escaped, so that no licence text can become a heading, a link or a table of ours.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass

from hotrain.scoring.metrics import figure_text

CARD = "MODEL_CARD.md"
_LONGEST = 1000  # characters of one foreign text
# What Markdown reads as more than text: marks anywhere, addresses that GitHub links by itself, and what makes a heading
# or a list at the start of a line.
_SPECIAL = re.compile(r"([\\`*_\[\]<>|~&@]|:(?=//)|(?<=(?i:www))\.|^[#+\-=]|(?<=\d)[.)](?=\s|$))")
_ADDRESS = re.compile(r"https?://[A-Za-z0-9._~/%?=&+:,#-]{1,300}")
_WEAK = 0.5  # IoU below which a figure is named among the known failures


@dataclass(frozen=True)
class CardDataset:
    """Whose data a source is, in the words of its manifest; empty where that is missing."""

    name: str
    title: str = ""
    url: str = ""
    licence: str = ""
    citation: str = ""


@dataclass(frozen=True)
class CardSource:
    """One training source.

    Args:
        name: in every table.
        samples, groups: that were trained on.
        meanings: (name, description) of its masks.
        origins: who or what drew them.
        views: of the camera, as far as the source says.
        undecided: public classes that none of its pixels is surely.
        hand_sizes: longer side of a hand's box in pixels as the network sees it: 10 %, 50 %, 90 %; None without hands.
    """

    name: str
    samples: int
    groups: int
    meanings: Sequence[tuple[str, str]]
    origins: Sequence[str]
    views: Sequence[str]
    undecided: Sequence[str]
    hand_sizes: tuple[float, float, float] | None


@dataclass(frozen=True)
class CardScore:
    """Validation figures of one source, or of all pixels together (`source` is empty)."""

    source: str
    samples: int
    extent: str
    kinds: Mapping[str, float | None]
    accuracy: float | None


@dataclass(frozen=True)
class CardFacts:
    """Everything a card says.

    Args:
        task, model: names.
        classes: public classes, in the order of the model's answers.
        arms: whether training had a class for arms.
        input_rule: one sentence: how an image enters.
        stride: pixels of the input for one answer of the network before it is enlarged.
        samples_seen: that training drew.
        start: where the weights came from.
        open_labels: how pixels were read whose masks leave several classes open.
        sides: share of the hand pixels that are labelled left, right, and as neither, in 0..1.
        sources: of training.
        datasets: of training, and of the runs that the weights came from.
        scores: of validation, all together first; empty where nothing was scored.
        calibration: temperature, calibration error before and after; None without.
        versions: of the programs.
        data_hash: of the training samples.
    """

    task: str
    model: str
    classes: Sequence[str]
    arms: bool
    input_rule: str
    stride: int
    samples_seen: int
    start: str
    open_labels: str
    sides: tuple[float, float, float]
    sources: Sequence[CardSource]
    datasets: Sequence[CardDataset]
    scores: Sequence[CardScore]
    calibration: tuple[float, float, float] | None
    versions: Mapping[str, str]
    data_hash: str


def model_card(facts: CardFacts) -> str:
    """The card as Markdown, with tables as GitHub reads them."""
    parts = [
        f"# {text(facts.model)}: {', '.join(map(text, facts.classes))}",
        _use(facts),
        _answers(facts),
        "## How to load it\n\n"
        "    import hotrain\n\n"
        '    model = hotrain.load("RUN")  # the run\'s folder, or the one that holds this file\n'
        "    labels = model.predict(images)[0].labels  # uint8 [H, W]\n\n"
        "or `hotrain annotate --checkpoint RUN INPUT --out masks/`. The weights are `weights.safetensors`, with "
        "torchvision's names; `run.json` holds every option of the run.",
        _trained_on(facts),
        _validation(facts),
        _failures(facts),
        _licences(facts),
        f"Data hash {text(facts.data_hash)}; "
        + ", ".join(f"{text(name)} {text(version)}" for name, version in facts.versions.items())
        + ".",
    ]
    return "\n\n".join(parts) + "\n"


def text(value: str) -> str:
    """Foreign words as one line of plain Markdown text: every character that could mean more is escaped."""
    line = " ".join("".join(c if c.isprintable() else " " for c in value).split())
    if len(line) > _LONGEST:
        line = line[:_LONGEST] + "…"
    return _SPECIAL.sub(r"\\\1", line)


def _use(facts: CardFacts) -> str:
    names = ", ".join(text(source.name) for source in facts.sources)
    return (
        "## What it is for\n\n"
        f"Masks of hands{' and of what they hold' if 'object' in facts.classes else ''} in colour pictures (task "
        f"`{facts.task}`), as a first step of annotating recordings in 3D. It learnt from {names}; on other kinds of "
        "pictures nobody has measured it. It is no means of recognising people, and nothing that safety may rest on."
    )


def _answers(facts: CardFacts) -> str:
    arms = (
        "Arms have a class of their own inside: `--extent wrist` counts them as background, `--extent arm` as hand."
        if facts.arms
        else "No training mask tells hands from arms, or they were read as one: judge and use it at `--extent arm`."
    )
    calibrated = "Confidence is not calibrated."
    if facts.calibration:
        temperature, before, after = facts.calibration
        calibrated = (
            f"Confidence is calibrated on validation: temperature {temperature:.2f}, expected calibration error "
            f"{before:.3f} before, {after:.3f} after."
        )
    return (
        "## What goes in and what comes out\n\n"
        f"RGB pictures; {facts.input_rule} Answers have the picture's own size; the network gives one for every "
        f"{facts.stride}x{facts.stride} pixels of its input, enlarged before the most likely class is taken.\n\n"
        f"Classes: {', '.join(f'{number} {text(name)}' for number, name in enumerate(facts.classes))}. {arms} "
        f"{calibrated}"
    )


def _trained_on(facts: CardFacts) -> str:
    rows = [["source", "samples", "recordings", "what its masks mean", "drawn by", "hands, pixels"]]
    for source in facts.sources:
        meanings = "; ".join(f"{text(name)}: {text(description)}" for name, description in source.meanings)
        sizes = "{0:.0f} to {2:.0f}, median {1:.0f}".format(*source.hand_sizes) if source.hand_sizes else "none"
        drawn = ", ".join(map(text, source.origins)) or "unknown"
        rows.append([text(source.name), f"{source.samples:,}", f"{source.groups:,}", meanings, drawn, sizes])
    return (
        "## What it learnt from\n\n"
        f"{facts.samples_seen:,} samples were drawn from {sum(source.samples for source in facts.sources):,}, starting "
        f"from {text(facts.start)}. {_READING.get(facts.open_labels, '')} Hands: the longer side of their boxes as the "
        f"network sees them, 10th to 90th percentile.\n\n{_table(rows)}"
    )


_READING = {
    "sets": "A pixel whose mask leaves several classes open taught that it is one of them.",
    "ignore": "A pixel whose mask leaves several classes open taught nothing.",
    "as-drawn": "Masks were taken as they were drawn: what a source does not label taught background.",
}


def _validation(facts: CardFacts) -> str:
    title = "## Validation\n\n"
    if not facts.scores:
        return title + "The shards have no split val: nothing was measured, and this is the last checkpoint."
    kinds = list(dict.fromkeys(name for score in facts.scores for name in score.kinds))
    rows = [["source", "samples", "extent of hands", *(f"{name} IoU" for name in kinds), "accuracy"]]
    for score in facts.scores:
        figures = [figure_text(score.kinds.get(name)) for name in kinds] + [figure_text(score.accuracy)]
        rows.append([text(score.source) or "all pixels", f"{score.samples:,}", text(score.extent), *figures])
    return (
        f"{title}On recordings that training never saw, at the pictures' own size. This checkpoint was chosen by these "
        "figures, so they flatter it a little: `hotrain eval` scores the split test. n/a: its masks do not say.\n\n"
        + _table(rows)
    )


def _failures(facts: CardFacts) -> str:
    lines = [*_of_sizes(facts), *_of_labels(facts), *_of_scores(facts)]
    return "## Known failures\n\n" + "\n".join(f"- {line}" for line in lines or ["None were derived from the data."])


def _of_sizes(facts: CardFacts) -> Iterator[str]:
    sizes = [(*source.hand_sizes, source.name) for source in facts.sources if source.hand_sizes]
    if sizes:
        low, _, _, name = min(sizes)
        high = max(size for _, _, size, _ in sizes)
        yield (
            f"Hands shorter than {low:.0f} or longer than {high:.0f} pixels at the network's size were rare in "
            f"training (the smallest are those of {text(name)}). What is thinner than the {facts.stride} pixels of one "
            "answer is easily lost."
        )


def _of_labels(facts: CardFacts) -> Iterator[str]:
    for source in facts.sources:
        silent = [text(name) for name in source.undecided if name != "background"]
        if silent:
            yield f"{text(source.name)} never says what is {' or '.join(silent)}."
    for name in facts.classes:
        if all(name in source.undecided for source in facts.sources):
            yield f"No source says what is {text(name)}: the model cannot know it."
    if not facts.arms:
        yield "Arms are called hand."
    left, right, _ = facts.sides
    for side, share in (("left", left), ("right", right)):
        if left + right > 0 and share < 0.1 * (left + right):
            yield f"Of the hand pixels whose side is labelled, {share / (left + right):.0%} are {side} hands."
    views = sorted({view for source in facts.sources for view in source.views})
    if len(views) == 1:
        yield f"All training pictures whose view is known are of one kind: {text(views[0])}."


def _of_scores(facts: CardFacts) -> Iterator[str]:
    measured = {score.source for score in facts.scores}
    for source in facts.sources:
        if facts.scores and source.name not in measured:
            yield f"{text(source.name)} has no validation samples: its figures are unknown."
    for score in facts.scores:
        for name, value in score.kinds.items():
            if score.source and value is not None and value < _WEAK:
                yield f"{name.capitalize()} in {text(score.source)}: IoU {value:.3f} on validation."


def _licences(facts: CardFacts) -> str:
    lines = []
    trained_on = {source.name for source in facts.sources}
    for dataset in facts.datasets:
        address = f" <{dataset.url}>" if _ADDRESS.fullmatch(dataset.url) else ""
        stage = "" if dataset.name in trained_on else ", in an earlier stage"
        licence = text(dataset.licence) or "licence unknown, its manifest is missing or silent"
        citation = f" Cite: {text(dataset.citation)}" if dataset.citation.strip() else ""
        lines.append(
            f"- {text(dataset.name)} ({text(dataset.title) or 'untitled'}{stage}){address}: {licence}.{citation}"
        )
    return (
        "## Licences and citations\n\n"
        "The data are not ours. What each licence allows of a model trained on it is for you to read:\n\n"
        + "\n".join(lines)
    )


def _table(rows: Sequence[Sequence[str]]) -> str:
    """A Markdown table; the first row is its head."""
    lines = ["| " + " | ".join(row) + " |" for row in rows]
    return "\n".join([lines[0], "|" + "---|" * len(rows[0]), *lines[1:]])
