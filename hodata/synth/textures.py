"""Solid textures: functions of the point on a thing, so that they move with it; and the look of skin.

One row of the materials table (see `appearance.material`) describes a surface.
"""

from __future__ import annotations

import numpy as np

from hodata.kernels import njit

# Texture kinds, the first number of a material.
PLAIN, STRIPES, CHECKS, WOOD, SPECKLE, LABEL, PLAID, SKIN, CLOUDS, PRINT, FACE = range(11)

_MIX = (np.uint32(0x8DA6B343), np.uint32(0xD8163841), np.uint32(0xCB1AB31F), np.uint32(0x9E3779B1))


@njit(error_model="numpy", inline="always")
def _scatter(h):  # type: ignore[no-untyped-def]
    """A number in [0, 1) from mixed lattice coordinates."""
    h ^= h >> np.uint32(15)
    h = np.uint32(h * np.uint32(0x2C1B3C6D))
    h ^= h >> np.uint32(13)
    return np.float32(h >> np.uint32(8)) * np.float32(1.0 / 16777216.0)


@njit(error_model="numpy", inline="always")
def lattice_hash(i, j, k, seed):  # type: ignore[no-untyped-def]
    """A number in [0, 1) for a lattice point."""
    a, b, c = np.uint32(i) * _MIX[0], np.uint32(j) * _MIX[1], np.uint32(k) * _MIX[2]
    return _scatter(np.uint32(a) ^ np.uint32(b) ^ np.uint32(c) ^ np.uint32(np.uint32(seed) * _MIX[3]))


@njit(error_model="numpy")
def value_noise(x, y, z, seed):  # type: ignore[no-untyped-def]
    """Smooth noise in [0, 1] with one value per unit cell."""
    fx, fy, fz = np.floor(x), np.floor(y), np.floor(z)
    u, v, w = x - fx, y - fy, z - fz
    u, v, w = u * u * (3 - 2 * u), v * v * (3 - 2 * v), w * w * (3 - 2 * w)
    salt = np.uint32(np.uint32(seed) * _MIX[3])
    a0, b0, c0 = np.uint32(np.int64(fx)), np.uint32(np.int64(fy)), np.uint32(np.int64(fz))
    a0, b0, c0 = np.uint32(a0 * _MIX[0]), np.uint32(b0 * _MIX[1]), np.uint32(np.uint32(c0 * _MIX[2]) ^ salt)
    a1, b1 = np.uint32(a0 + _MIX[0]), np.uint32(b0 + _MIX[1])
    c1 = np.uint32(np.uint32(np.uint32(c0 ^ salt) + _MIX[2]) ^ salt)
    near = (_scatter(a0 ^ b0 ^ c0) * (1 - u) + _scatter(a1 ^ b0 ^ c0) * u) * (1 - v)
    near += (_scatter(a0 ^ b1 ^ c0) * (1 - u) + _scatter(a1 ^ b1 ^ c0) * u) * v
    far = (_scatter(a0 ^ b0 ^ c1) * (1 - u) + _scatter(a1 ^ b0 ^ c1) * u) * (1 - v)
    far += (_scatter(a0 ^ b1 ^ c1) * (1 - u) + _scatter(a1 ^ b1 ^ c1) * u) * v
    return near * (1 - w) + far * w


@njit(error_model="numpy", inline="always")
def edge(value, at, width):  # type: ignore[no-untyped-def]
    return min(max((value - at) / width + 0.5, 0.0), 1.0)


@njit(error_model="numpy")
def mixing(m, x, y, z):  # type: ignore[no-untyped-def]
    """How much of the second colour a texture shows at a point: [0, 1]."""
    kind, scale, seed = int(m[0]), m[7], int(m[11])
    if kind == STRIPES:
        s = (x * m[12] + y * m[13] + z * m[14]) * scale
        s -= np.floor(s)
        return edge(abs(s - 0.5), 0.25 * (0.4 + m[15]), 0.06)
    if kind == CHECKS:
        a, b = np.floor(x * scale), np.floor(y * scale)
        c = np.floor(z * scale + 0.013)
        return np.float64((int(a) + int(b) + int(c)) & 1)
    if kind == WOOD:
        bend = value_noise(x * scale * 0.25, y * scale * 0.25, z * scale * 0.04, seed)
        ring = (x * m[12] + y * m[13] + z * m[14]) * scale * 0.5 + 3.0 * bend
        ring += 0.25 * value_noise(x * scale * 4, y * scale * 4, z * scale * 4, seed + 1)
        ring -= np.floor(ring)
        return ring * ring * 0.75
    if kind == SPECKLE:
        return edge(value_noise(x * scale, y * scale, z * scale, seed), 0.72 - 0.25 * m[15], 0.1)
    if kind == LABEL:
        if m[12] < z < m[13]:
            a, b, c = int(np.floor(x * scale)), int(np.floor(y * scale)), int(np.floor(z * scale))
            if lattice_hash(a, b, c, seed) < 0.22:
                return 0.15
            return 1.0
        return 0.0
    if kind == PLAID:
        a, b, c = x * scale, y * scale, z * scale
        a, b, c = a - np.floor(a), b - np.floor(b), c - np.floor(c)
        s = 0.5 * (a < 0.35) + 0.5 * (c < 0.35)
        return min(s + 0.25 * (b < 0.2), 1.0)
    if kind == CLOUDS:
        n = 0.6 * value_noise(x * scale, y * scale, z * scale, seed)
        n += 0.4 * value_noise(x * scale * 2.7, y * scale * 2.7, z * scale * 2.7, seed + 7)
        return edge(n, 0.5, 0.5)
    if kind == PRINT:
        a, b, c = int(np.floor(x * scale)), int(np.floor(y * scale)), int(np.floor(z * scale * 0.6))
        return lattice_hash(a, b, c, seed)
    if kind == FACE:
        # A coarse face on the -y side of a head of unit size: eyes, brows, mouth, hair on top.
        if z > 0.55 + 0.2 * value_noise(x * 6, y * 6, z * 6, seed) or y > 0.35:
            return 1.0
        eye = min((abs(x) - 0.32) ** 2 * 2.2 + (z - 0.12) ** 2 * 9, (abs(x) - 0.32) ** 2 + (z - 0.3) ** 2 * 40)
        mouth = x * x * 1.2 + (z + 0.45) ** 2 * 30
        return 0.8 * (1 - edge(min(eye, 0.6 * mouth), 0.05, 0.05)) if y < 0 else 0.0
    return 0.0


@njit(error_model="numpy")
def skin(m, marks, x, y, z, color):  # type: ignore[no-untyped-def]
    """Skin at a point of the hand at rest: blotches, paler palm, creases, nails. Returns the extra gloss."""
    seed = int(m[11])
    blotch = value_noise(x * 45, y * 45, z * 45, seed) - 0.5
    grain = value_noise(x * 420, y * 420, z * 420, seed + 3) - 0.5
    shade = 1.0 + m[8] * (0.5 * blotch + 0.35 * grain)
    pale = edge(-y, 0.004, 0.014) * edge(x, 0.0, 0.02)
    r = shade * (color[0] * (1 - pale) + pale * m[4])
    g = shade * (color[1] * (1 - pale) + pale * m[5])
    b = shade * (color[2] * (1 - pale) + pale * m[6])
    gloss = 0.0
    red = 0.0
    dark = 0.0
    if x > 0.02:
        for n in range(marks.shape[0]):
            qx, qy, qz = x - marks[n, 1], y - marks[n, 2], z - marks[n, 3]
            if qx * qx + qy * qy + qz * qz > 0.00032:
                continue
            along = qx * marks[n, 4] + qy * marks[n, 5] + qz * marks[n, 6]
            above = qx * marks[n, 7] + qy * marks[n, 8] + qz * marks[n, 9]
            if marks[n, 0] == 0:  # a nail
                side = np.sqrt(max(qx * qx + qy * qy + qz * qz - along * along - above * above, 0.0))
                if above > 0:
                    u, v = along / 0.0062, side / (0.78 * marks[n, 10])
                    d = u * u * u * u + v * v * v * v
                    if d < 1:
                        tip = edge(along, 0.0045, 0.0012)
                        # Paler and pinker than this skin, its free edge more so.
                        r += (0.30 + 0.25 * tip) * (0.35 + 0.6 * m[4] - r)
                        g += (0.25 + 0.30 * tip) * (0.25 + 0.6 * m[5] - g)
                        b += (0.25 + 0.30 * tip) * (0.22 + 0.6 * m[6] - b)
                        gloss = 0.12
                    elif d < 1.7:
                        dark = max(dark, 0.22)
            else:  # a joint: creases across
                if above < 0:
                    dark = max(dark, 0.30 * np.exp(-((along / 0.0009) ** 2)))
                else:
                    wave = 0.5 + 0.5 * np.cos(along * 2900.0)
                    dark = max(dark, 0.16 * wave * np.exp(-((along / 0.0042) ** 2)))
                    red = max(red, np.exp(-((along / 0.007) ** 2)))
        red = max(red, 0.8 * edge(x, 0.155, 0.03))
        if pale > 0.5:  # the lines of the palm
            for line in range(3):
                at = (0.070, 0.056, 0.030)[line] + (-9.0, -7.0, 5.0)[line] * (z + (0.03, 0.02, -0.02)[line]) ** 2
                dark = max(dark, 0.22 * np.exp(-(((x - at) / 0.0010) ** 2)))
    g *= 1 - 0.10 * red
    b *= 1 - 0.10 * red
    color[0], color[1], color[2] = r * (1 - 0.6 * dark), g * (1 - dark), b * (1 - dark)
    return gloss
