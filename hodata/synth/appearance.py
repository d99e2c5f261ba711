"""Colours, materials, light and backdrops, drawn at random so that colour helps but never decides.

Held things, things that lie about, clothes, tables and walls draw from one palette, and a fifth of it is the colour of
some skin. A colour histogram says how hard that is: fitted on real egocentric frames (UT Grasp, docs/benchmarks.md) it
finds hands at an IoU of 0.62, on the miniatures of EgoHands, EgoHOS and FreiHAND at 0.27 to 0.31.
"""

from __future__ import annotations

from functools import lru_cache

import numpy as np
from numpy.typing import NDArray

from hodata.kernels import njit
from hodata.synth import textures
from hodata.synth.develop import linear_from_srgb
from hodata.synth.hand_model import hand_model
from hodata.synth.shade import Light

Array = NDArray[np.float64]

# sRGB, from very light to very dark.
SKIN_TONES = np.array(
    [
        (247, 218, 196), (241, 201, 172), (232, 184, 152), (220, 165, 130), (203, 146, 110),
        (183, 124, 88), (156, 100, 70), (126, 79, 54), (97, 61, 43), (70, 45, 34),
    ],
    dtype=np.float64,
)  # fmt: skip
# sRGB: painted, printed and dyed things.
PAINTS = np.array(
    [
        (200, 40, 40), (222, 90, 40), (238, 170, 40), (240, 215, 70), (110, 170, 60), (40, 120, 70),
        (50, 150, 160), (60, 130, 200), (40, 70, 150), (95, 70, 150), (160, 70, 140), (220, 120, 150),
        (245, 243, 238), (205, 205, 205), (140, 143, 148), (85, 88, 92), (38, 40, 44),
    ],
    dtype=np.float64,
)  # fmt: skip
# sRGB: wood, cardboard, leather, clay, wool.
EARTHS = np.array(
    [
        (222, 184, 140), (196, 148, 104), (168, 120, 80), (205, 170, 130), (150, 96, 62), (110, 72, 48),
        (226, 200, 170), (190, 138, 112), (214, 158, 132), (128, 92, 70), (84, 58, 44), (235, 205, 185),
    ],
    dtype=np.float64,
)  # fmt: skip


def any_color(rng: np.random.Generator) -> Array:
    """Linear RGB [3] of anything that is not skin; 2 in 10 could be."""
    pick = rng.uniform()
    if pick < 0.14:
        base = EARTHS[rng.integers(len(EARTHS))]
    elif pick < 0.20:
        base = SKIN_TONES[rng.integers(len(SKIN_TONES))]
    else:
        base = PAINTS[rng.integers(len(PAINTS))]
    return linear_from_srgb(np.clip(base * rng.uniform(0.8, 1.12) + rng.normal(0, 9, 3), 4, 250))


def skin_tone(rng: np.random.Generator) -> Array:
    """Linear RGB [3] of somebody's skin."""
    place = rng.uniform(0, len(SKIN_TONES) - 1)
    low = int(place)
    high = min(low + 1, len(SKIN_TONES) - 1)
    tone = SKIN_TONES[low] + (place - low) * (SKIN_TONES[high] - SKIN_TONES[low])
    return linear_from_srgb(np.clip(tone + rng.normal(0, 5, 3), 10, 252))


def material(
    kind: int,
    first: Array,
    second: Array,
    *,
    scale: float = 30.0,
    grain: float = 0.15,
    gloss: float = 0.0,
    shininess: float = 20.0,
    seed: int = 0,
    extra: tuple[float, float, float, float] = (0.0, 0.0, 0.0, 0.0),
) -> Array:
    """One row [16] of the materials table: kind, two linear colours, texture scale (1/m), grain, gloss, more."""
    return np.array([kind, *first, *second, scale, grain, gloss, shininess, seed, *extra], dtype=np.float64)


def skin_material(tone: Array, rng: np.random.Generator) -> Array:
    """Skin of a tone; the palm is paler, most of all on dark hands."""
    palm = tone + (0.22 + 0.25 * (1 - tone.max())) * (linear_from_srgb((236, 190, 165)) - tone)
    return material(
        textures.SKIN, tone, palm, grain=rng.uniform(0.25, 0.5), gloss=rng.uniform(0.01, 0.05),
        shininess=rng.uniform(8, 25), seed=int(rng.integers(1 << 16)),
    )  # fmt: skip


def thing_material(rng: np.random.Generator, half_height: float = 0.05) -> Array:
    """A material for a thing that may be held or may lie about."""
    kind = int(
        rng.choice(
            [
                textures.PLAIN,
                textures.STRIPES,
                textures.CHECKS,
                textures.WOOD,
                textures.SPECKLE,
                textures.LABEL,
                textures.CLOUDS,
                textures.PRINT,
            ],
            p=[0.27, 0.12, 0.06, 0.13, 0.08, 0.18, 0.06, 0.10],
        )
    )
    first, second = any_color(rng), any_color(rng)
    low, high = {
        textures.STRIPES: (15, 70),
        textures.CHECKS: (25, 80),
        textures.WOOD: (60, 160),
        textures.SPECKLE: (120, 400),
        textures.LABEL: (70, 220),
        textures.PRINT: (30, 140),
    }.get(kind, (15, 60))
    scale = rng.uniform(low, high)
    if kind == textures.WOOD:
        first = linear_from_srgb(EARTHS[rng.integers(len(EARTHS))])
        second = first * rng.uniform(0.45, 0.75)
    direction = rng.normal(size=3)
    if kind == textures.STRIPES and rng.uniform() < 0.6:
        direction = np.array([0.0, 0.0, 1.0])
    direction /= np.linalg.norm(direction)
    extra = (*direction, rng.uniform())
    if kind == textures.LABEL:
        bottom = rng.uniform(-0.8, -0.2) * half_height
        extra = (bottom, bottom + rng.uniform(0.6, 1.2) * half_height, 0.0, 0.0)
    return material(
        kind, first, second, scale=scale, grain=rng.uniform(0.0, 0.25),
        gloss=float(rng.choice([0.0, rng.uniform(0.05, 0.5)])), shininess=rng.uniform(10, 80),
        seed=int(rng.integers(1 << 16)), extra=extra,
    )  # fmt: skip


def cloth_material(rng: np.random.Generator) -> Array:
    """A sleeve: plain, striped, plaid or mottled, dull."""
    kind = int(rng.choice([textures.PLAIN, textures.STRIPES, textures.PLAID, textures.CLOUDS], p=[0.5, 0.2, 0.2, 0.1]))
    first, second = any_color(rng), any_color(rng)
    if kind == textures.CLOUDS:
        second = first * rng.uniform(0.5, 1.4)
    direction = np.array([[1.0, 0.0, 0.0], [0.0, 0.5, 0.86]][int(rng.integers(2))])
    return material(
        kind, first, second, scale=rng.uniform(18, 60), grain=rng.uniform(0.2, 0.6),
        seed=int(rng.integers(1 << 16)), extra=(*direction, rng.uniform(0, 1)),
    )  # fmt: skip


def table_material(rng: np.random.Generator) -> Array:
    """A table top: wood, cloth, stone, plain."""
    kind = int(
        rng.choice(
            [textures.WOOD, textures.PLAIN, textures.CHECKS, textures.CLOUDS, textures.STRIPES, textures.PLAID],
            p=[0.3, 0.26, 0.1, 0.18, 0.08, 0.08],
        )
    )
    first, second = any_color(rng), any_color(rng)
    scale = rng.uniform(8, 25)
    if kind == textures.WOOD:
        first = linear_from_srgb(EARTHS[rng.integers(len(EARTHS))] * rng.uniform(0.7, 1.1))
        second = first * rng.uniform(0.5, 0.8)
        scale = rng.uniform(25, 70)
    if kind in (textures.CLOUDS, textures.PLAID, textures.STRIPES):
        second = first + rng.uniform(0.15, 0.5) * (second - first)
    angle = rng.uniform(0, np.pi)
    return material(
        kind, first, second, scale=scale, grain=0.0 if kind == textures.WOOD else rng.uniform(0.05, 0.35),
        gloss=float(rng.choice([0.0, rng.uniform(0.03, 0.15)])), shininess=rng.uniform(15, 60),
        seed=int(rng.integers(1 << 16)), extra=(np.cos(angle), np.sin(angle), 0.0, rng.uniform()),
    )  # fmt: skip


def draw_light(rng: np.random.Generator, toward_viewer: Array, up: Array) -> Light:
    """A lamp somewhere above, on the viewer's side of things; warm or cool; more or less light from all around."""
    right = np.cross(toward_viewer, up)
    direction = up * rng.uniform(0.5, 1.2) + right * rng.uniform(-1.0, 1.0) + toward_viewer * rng.uniform(-0.3, 0.9)
    direction /= np.linalg.norm(direction)
    warmth = rng.normal(0, 0.10)
    tint = np.array([1 + warmth, 1.0, 1 - warmth])
    lamp = rng.uniform(0.35, 1.05)
    around = rng.uniform(0.22, 0.5)
    cool = rng.normal(0, 0.06)
    sky = around * np.array([1 - cool, 1.0, 1 + cool])
    ground = around * rng.uniform(0.3, 0.7) * (0.6 + 0.4 * any_color(rng))
    return Light(direction, lamp * tint, sky, ground, up, float(rng.uniform(1.0, 5.0)))


def turn_light(light: Light, R: Array) -> Light:
    """The same light in a frame that is turned by R [3, 3]."""
    return Light(R @ light.direction, light.color, light.sky, light.ground, R @ light.up, light.softness)


def backdrop(rng: np.random.Generator, shape: tuple[int, int], clutter: int = 16) -> NDArray[np.float32]:
    """An out-of-focus surrounding, linear float32 [h, w, 3]: walls, shelves, boxes, blobs, some skin-coloured."""
    h, w = shape
    rows = np.zeros((clutter + 1, 16))
    aspect = w / h
    rows[0] = [2, 0, rng.uniform(0.2, 0.8), 1, 1, rng.normal(0, 0.15), 0.2, *any_color(rng), *any_color(rng), 3, 4, 0]
    for k in range(1, clutter + 1):
        kind = int(rng.choice([0, 0, 1, 1, 3]))
        size = np.exp(rng.uniform(np.log(0.05), np.log(0.45), 2))
        color = any_color(rng)
        if kind == 1 and rng.uniform() < 0.25:  # a blob the size and colour of a hand or a face
            color, size = skin_tone(rng), np.array([1.0, rng.uniform(0.6, 1.5)]) * rng.uniform(0.06, 0.2)
        rows[k] = [
            kind, rng.uniform(0, aspect), rng.uniform(0, 1), *size, rng.normal(0, 0.35), rng.uniform(0.005, 0.04),
            *color, *(color * rng.uniform(0.4, 1.3) if rng.uniform() < 0.6 else any_color(rng)),
            int(rng.integers(4)), rng.uniform(4, 22), rng.integers(1 << 16),
        ]  # fmt: skip
    out = np.empty((h, w, 3), dtype=np.float32)
    _paint(rows, out)
    return out * np.float32(rng.uniform(0.35, 0.9))


def green_screen(rng: np.random.Generator, shape: tuple[int, int]) -> NDArray[np.float32]:
    """Evenly lit green cloth with soft folds, linear float32 [h, w, 3]."""
    h, w = shape
    green = linear_from_srgb(np.clip(np.array([52, 150, 72]) + rng.normal(0, 12, 3), 10, 220))
    rows = np.array([[2, 0, 0.5, 1, 1, rng.normal(0, 0.5), 1.5, *green, *(0.7 * green), 3, 2.5, rng.integers(99)]])
    out = np.empty((h, w, 3), dtype=np.float32)
    _paint(rows, out)
    return out


@lru_cache(maxsize=1)
def skin_marks() -> Array:
    """[20, 11] nails (0) and joints (1) at rest: kind, place, direction of the finger, of its back, radius."""
    model = hand_model("right")
    tips = model.vertices[[320, 443, 672, 555, 744]]
    rows = []
    for finger in range(5):
        first = 1 + 3 * finger
        chain = [*model.joints[first : first + 3], tips[finger]]
        for bone in range(3):
            along = chain[bone + 1] - chain[bone]
            along = along / np.linalg.norm(along)
            back = np.array([0.0, 1.0, 0.0]) if finger < 4 else np.array([-0.1, 0.8, -0.6])
            back = back - (back @ along) * along
            back /= np.linalg.norm(back)
            rows.append([1, *chain[bone], *along, *back, 0.0])
            if bone == 2:
                radius = 0.0078 if finger < 4 else 0.0095
                rows.append([0, *(chain[3] - 0.0085 * along + 0.5 * radius * back), *along, *back, radius])
    return np.array(rows)


@njit()
def _paint(rows, out):  # type: ignore[no-untyped-def]
    """Paint shapes over one another. Lengths are in picture heights."""
    height, width, _ = out.shape
    cosine, sine = np.cos(rows[:, 5]), np.sin(rows[:, 5])
    for y in range(height):
        for x in range(width):
            u, v = x / height, y / height
            for k in range(rows.shape[0]):
                m = rows[k]
                a, b = u - m[1], v - m[2]
                p, q = (a * cosine[k] + b * sine[k]) / m[3], (b * cosine[k] - a * sine[k]) / m[4]
                if m[0] != 2 and (abs(p) > 1 or abs(q) > 1):
                    continue
                soft = m[6] / min(m[3], m[4])
                if m[0] == 0:
                    cover = min(max((1 - max(abs(p), abs(q))) / soft, 0.0), 1.0)
                elif m[0] == 1:
                    cover = min(max((1 - np.sqrt(p * p + q * q)) / soft, 0.0), 1.0)
                elif m[0] == 3:  # boards of a shelf
                    wave = q * 2.5 - np.floor(q * 2.5)
                    cover = min(max((0.1 - abs(wave - 0.5)) * m[4] / 2.5 / 0.006 + 0.5, 0.0), 1.0)
                else:
                    cover = 1.0
                if cover <= 0:
                    continue
                texture, scale, seed = int(m[13]), m[14], int(m[15])
                if k == 0:
                    t = min(max(0.5 + q / 0.8, 0.0), 1.0)
                elif texture == 1:
                    s = p * scale * 0.3 - np.floor(p * scale * 0.3)
                    t = min(max((0.25 - abs(s - 0.5)) * m[3] / (scale * 0.3) / 0.01 + 0.5, 0.0), 1.0)
                elif texture == 2:
                    t = min(max(0.5 + 0.5 * q, 0.0), 1.0)
                elif texture == 3:
                    t = textures.value_noise(u * scale, v * scale, 0.5, seed)
                else:
                    t = 0.3 * textures.value_noise(u * 12, v * 12, 0.5, seed)
                for c in range(3):
                    value = m[7 + c] + t * (m[10 + c] - m[7 + c])
                    out[y, x, c] = value if k == 0 else out[y, x, c] + cover * (value - out[y, x, c])
