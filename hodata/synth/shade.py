"""Colour for every pixel: solid textures, lamp with shadow, sky light, and what a small camera does to a picture.

One row of the materials table (see `appearance.material`) describes a surface; textures are functions of the
point on the thing itself, so they move with it. All colours are linear RGB until `develop`.
"""

from __future__ import annotations

from dataclasses import dataclass

import numba
import numpy as np
from numpy.typing import NDArray

from hodata.pose.camera import intrinsics, look_at, transform
from hodata.pose.rasterize import Raster, corner_weights, rasterize

Array = NDArray[np.float64]

# Texture kinds, the first number of a material.
PLAIN, STRIPES, CHECKS, WOOD, SPECKLE, LABEL, PLAID, SKIN, CLOUDS, PRINT, FACE = range(11)
MATERIAL_SIZE = 16
SHADOW_SIZE = 384


@dataclass(frozen=True)
class Light:
    """A lamp and light from all around.

    Args:
        direction: [3] unit vector toward the lamp, in the frame of the vertices.
        color: [3] of the lamp; `sky` [3] from above, `ground` [3] from below.
        up: [3] unit vector in the same frame.
        softness: how wide the edge of a shadow is, in shadow map cells.
    """

    direction: Array
    color: Array
    sky: Array
    ground: Array
    up: Array
    softness: float


def shadow_map(vertices: Array, casters: NDArray[np.int32], light: Light, center: Array, radius: float):  # type: ignore[no-untyped-def]
    """Depth from the lamp: (float32 [S, S], T_light_from_scene [4, 4], K of the lamp's view)."""
    distance = 4.0 * radius + 1.0
    up = np.array([0.0, 1.0, 0.0]) if abs(light.direction[1]) < 0.9 else np.array([1.0, 0.0, 0.0])
    T = look_at(center + distance * light.direction, center, up)
    K = intrinsics(0.5 * SHADOW_SIZE * distance / radius, (SHADOW_SIZE, SHADOW_SIZE))
    raster = rasterize(transform(T, vertices), casters, K, (SHADOW_SIZE, SHADOW_SIZE), near=0.05)
    return raster.depth, T, K


def shade(
    raster: Raster,
    K: Array,
    vertices: Array,
    normals: Array,
    texture: Array,
    faces: NDArray[np.int32],
    face_material: NDArray[np.int32],
    materials: Array,
    light: Light,
    shadow: tuple[NDArray[np.float32], Array, Array],
    backdrop: NDArray[np.float32],
    skin_marks: Array,
) -> NDArray[np.float32]:
    """Linear colours float32 [H, W, 3] of a drawn scene.

    Args:
        raster: faces and depths of the picture.
        vertices, normals, texture: [V, 3] camera frame, camera frame, the thing's own frame.
        faces: [F, 3]; `face_material` [F] rows of `materials` [M, 16].
        shadow: from `shadow_map`.
        backdrop: [h, w, 3] seen where nothing is drawn; stretched over the picture.
        skin_marks: [N, 11] nails and creases (see `appearance.skin_marks`).
    """
    out = np.empty((*raster.face.shape, 3), dtype=np.float32)
    depth, T, light_K = shadow
    lamp = np.array([light.direction, light.color, light.sky, light.ground, light.up])
    _shade(
        raster.face, np.linalg.inv(K), vertices, normals, texture, faces, face_material, materials, lamp,
        light.softness, depth, T, light_K, backdrop, skin_marks, out,
    )  # fmt: skip
    return out


def develop(
    linear: NDArray[np.float32], exposure: float, blur: float, noise: float, vignette: float, seed: int
) -> NDArray[np.uint8]:
    """sRGB uint8 [H, W, 3]: lens blur (0 to 1 of a 3x3 binomial, twice beyond 1), vignette, gamma, sensor noise."""
    out = np.empty(linear.shape, dtype=np.uint8)
    source = np.ascontiguousarray(linear, dtype=np.float32)
    for strength in (min(blur, 1.0), min(max(blur - 1.0, 0.0), 1.0)):
        if strength > 0:
            source = _blur(source, np.float32(strength))
    _develop(source, np.float32(exposure), np.float32(noise), np.float32(vignette), np.uint32(seed), _GAMMA, out)
    return out


def linear_from_srgb(color: object) -> Array:
    """Linear RGB in [0, 1] of sRGB values 0-255 (IEC 61966-2-1)."""
    c = np.asarray(color, dtype=np.float64) / 255
    return np.where(c <= 0.04045, c / 12.92, ((c + 0.055) / 1.055) ** 2.4)


def _gamma_table() -> NDArray[np.float32]:
    x = np.arange(4096) / 4095
    return (255 * np.where(x <= 0.0031308, 12.92 * x, 1.055 * x ** (1 / 2.4) - 0.055)).astype(np.float32)


_GAMMA = _gamma_table()


_MIX = (np.uint32(0x8DA6B343), np.uint32(0xD8163841), np.uint32(0xCB1AB31F), np.uint32(0x9E3779B1))


@numba.njit(cache=True, inline="always")
def _scatter(h):  # type: ignore[no-untyped-def]
    """A number in [0, 1) from mixed lattice coordinates."""
    h ^= h >> np.uint32(15)
    h = np.uint32(h * np.uint32(0x2C1B3C6D))
    h ^= h >> np.uint32(13)
    return np.float32(h >> np.uint32(8)) * np.float32(1.0 / 16777216.0)


@numba.njit(cache=True, inline="always")
def _hash(i, j, k, seed):  # type: ignore[no-untyped-def]
    """A number in [0, 1) for a lattice point."""
    a, b, c = np.uint32(i) * _MIX[0], np.uint32(j) * _MIX[1], np.uint32(k) * _MIX[2]
    return _scatter(np.uint32(a) ^ np.uint32(b) ^ np.uint32(c) ^ np.uint32(np.uint32(seed) * _MIX[3]))


@numba.njit(cache=True)
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


@numba.njit(cache=True, inline="always")
def _edge(value, at, width):  # type: ignore[no-untyped-def]
    return min(max((value - at) / width + 0.5, 0.0), 1.0)


@numba.njit(cache=True)
def _mixing(m, x, y, z):  # type: ignore[no-untyped-def]
    """How much of the second colour a texture shows at a point: [0, 1]."""
    kind, scale, seed = int(m[0]), m[7], int(m[11])
    if kind == STRIPES:
        s = (x * m[12] + y * m[13] + z * m[14]) * scale
        s -= np.floor(s)
        return _edge(abs(s - 0.5), 0.25 * (0.4 + m[15]), 0.06)
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
        return _edge(value_noise(x * scale, y * scale, z * scale, seed), 0.72 - 0.25 * m[15], 0.1)
    if kind == LABEL:
        if m[12] < z < m[13]:
            a, b, c = int(np.floor(x * scale)), int(np.floor(y * scale)), int(np.floor(z * scale))
            if _hash(a, b, c, seed) < 0.22:
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
        return _edge(n, 0.5, 0.5)
    if kind == PRINT:
        a, b, c = int(np.floor(x * scale)), int(np.floor(y * scale)), int(np.floor(z * scale * 0.6))
        return _hash(a, b, c, seed)
    if kind == FACE:
        # A coarse face on the -y side of a head of unit size: eyes, brows, mouth, hair on top.
        if z > 0.55 + 0.2 * value_noise(x * 6, y * 6, z * 6, seed) or y > 0.35:
            return 1.0
        eye = min((abs(x) - 0.32) ** 2 * 2.2 + (z - 0.12) ** 2 * 9, (abs(x) - 0.32) ** 2 + (z - 0.3) ** 2 * 40)
        mouth = x * x * 1.2 + (z + 0.45) ** 2 * 30
        return 0.8 * (1 - _edge(min(eye, 0.6 * mouth), 0.05, 0.05)) if y < 0 else 0.0
    return 0.0


@numba.njit(cache=True)
def _skin(m, marks, x, y, z, color):  # type: ignore[no-untyped-def]
    """Skin at a point of the hand at rest: blotches, paler palm, creases, nails. Returns the extra gloss."""
    seed = int(m[11])
    blotch = value_noise(x * 45, y * 45, z * 45, seed) - 0.5
    grain = value_noise(x * 420, y * 420, z * 420, seed + 3) - 0.5
    shade = 1.0 + m[8] * (0.5 * blotch + 0.35 * grain)
    pale = _edge(-y, 0.004, 0.014) * _edge(x, 0.0, 0.02)
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
                        tip = _edge(along, 0.0045, 0.0012)
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
        red = max(red, 0.8 * _edge(x, 0.155, 0.03))
        if pale > 0.5:  # the lines of the palm
            for line in range(3):
                at = (0.070, 0.056, 0.030)[line] + (-9.0, -7.0, 5.0)[line] * (z + (0.03, 0.02, -0.02)[line]) ** 2
                dark = max(dark, 0.22 * np.exp(-(((x - at) / 0.0010) ** 2)))
    g *= 1 - 0.10 * red
    b *= 1 - 0.10 * red
    color[0], color[1], color[2] = r * (1 - 0.6 * dark), g * (1 - dark), b * (1 - dark)
    return gloss


@numba.njit(cache=True)
def _lit(depth, T, K, px, py, pz, softness, jitter):  # type: ignore[no-untyped-def]
    """The part of the lamp that reaches a point: four looks at the shadow map."""
    x = T[0, 0] * px + T[0, 1] * py + T[0, 2] * pz + T[0, 3]
    y = T[1, 0] * px + T[1, 1] * py + T[1, 2] * pz + T[1, 3]
    z = T[2, 0] * px + T[2, 1] * py + T[2, 2] * pz + T[2, 3]
    u = K[0, 0] * x / z + K[0, 2]
    v = K[1, 1] * y / z + K[1, 2]
    if not (2 < u < depth.shape[1] - 3 and 2 < v < depth.shape[0] - 3):
        return 1.0
    total = 0.0
    other = jitter * 7.31
    other -= np.floor(other)
    for k in range(4):
        dx = softness * ((k & 1) - 0.5 + 0.7 * (jitter - 0.5))
        dy = softness * ((k >> 1) - 0.5 + 0.7 * (other - 0.5))
        i = min(max(int(v + dy + 0.5), 0), depth.shape[0] - 1)
        j = min(max(int(u + dx + 0.5), 0), depth.shape[1] - 1)
        total += 0.25 if z < depth[i, j] + 0.005 else 0.0
    return total


@numba.njit(cache=True)
def _shade(  # type: ignore[no-untyped-def]
    face_map, inverse_K, vertices, normals, texture, faces, face_material, materials, lamp, softness,
    shadow_depth, shadow_T, shadow_K, backdrop, marks, out,
):  # fmt: skip
    height, width = face_map.shape
    color = np.empty(3)
    p0, p1, p2 = np.empty(3), np.empty(3), np.empty(3)
    loaded, v0, v1, v2, kind = -1, 0, 0, 0, 0
    m = materials[0]
    sx, sy = (backdrop.shape[1] - 1.001) / max(width - 1, 1), (backdrop.shape[0] - 1.001) / max(height - 1, 1)
    for row in range(height):
        for col in range(width):
            f = face_map[row, col]
            if f < 0:
                u, v = col * sx, row * sy
                i, j = int(v), int(u)
                a, b = np.float32(u - j), np.float32(v - i)
                for c in range(3):
                    top = backdrop[i, j, c] * (1 - a) + backdrop[i, j + 1, c] * a
                    low = backdrop[i + 1, j, c] * (1 - a) + backdrop[i + 1, j + 1, c] * a
                    out[row, col, c] = top * (1 - b) + low * b
                continue
            dx = inverse_K[0, 0] * col + inverse_K[0, 1] * row + inverse_K[0, 2]
            dy = inverse_K[1, 1] * row + inverse_K[1, 2]
            if f != loaded:  # neighbours mostly share a face
                loaded = f
                v0, v1, v2 = faces[f, 0], faces[f, 1], faces[f, 2]
                for c in range(3):
                    p0[c], p1[c], p2[c] = vertices[v0, c], vertices[v1, c], vertices[v2, c]
                m = materials[face_material[f]]
                kind = int(m[0])
            w0, w1, w2 = corner_weights(dx, dy, p0, p1, p2)
            px = w0 * p0[0] + w1 * p1[0] + w2 * p2[0]
            py = w0 * p0[1] + w1 * p1[1] + w2 * p2[1]
            pz = w0 * p0[2] + w1 * p1[2] + w2 * p2[2]
            nx = w0 * normals[v0, 0] + w1 * normals[v1, 0] + w2 * normals[v2, 0]
            ny = w0 * normals[v0, 1] + w1 * normals[v1, 1] + w2 * normals[v2, 1]
            nz = w0 * normals[v0, 2] + w1 * normals[v1, 2] + w2 * normals[v2, 2]
            length = np.sqrt(nx * nx + ny * ny + nz * nz) + 1e-9
            facing = nx * px + ny * py + nz * pz
            if facing > 0:
                length = -length
            nx, ny, nz = nx / length, ny / length, nz / length
            x = w0 * texture[v0, 0] + w1 * texture[v1, 0] + w2 * texture[v2, 0]
            y = w0 * texture[v0, 1] + w1 * texture[v1, 1] + w2 * texture[v2, 1]
            z = w0 * texture[v0, 2] + w1 * texture[v1, 2] + w2 * texture[v2, 2]
            gloss = m[9]
            color[0], color[1], color[2] = m[1], m[2], m[3]
            if kind == SKIN:
                gloss += _skin(m, marks, x, y, z, color)
            else:
                t = _mixing(m, x, y, z)
                grain = 1.0
                if m[8] > 0:
                    grain += m[8] * (value_noise(x * 160, y * 160, z * 160, int(m[11]) + 5) - 0.5)
                color[0] = grain * (m[1] + t * (m[4] - m[1]))
                color[1] = grain * (m[2] + t * (m[5] - m[2]))
                color[2] = grain * (m[3] + t * (m[6] - m[3]))
            cosine = nx * lamp[0, 0] + ny * lamp[0, 1] + nz * lamp[0, 2]
            lit = 0.0
            if cosine > -0.3:
                jitter = _hash(row, col, 11, 5)
                # Step off the surface, so that it does not shade itself.
                step = 0.004
                lit = _lit(
                    shadow_depth, shadow_T, shadow_K, px + step * nx, py + step * ny, pz + step * nz, softness, jitter
                )
            height_ = 0.5 + 0.5 * (nx * lamp[4, 0] + ny * lamp[4, 1] + nz * lamp[4, 2])
            shine = 0.0
            if gloss > 0 and cosine > 0 and lit > 0:
                view = 1.0 / np.sqrt(px * px + py * py + pz * pz)
                hx, hy, hz = lamp[0, 0] - px * view, lamp[0, 1] - py * view, lamp[0, 2] - pz * view
                h = np.sqrt(hx * hx + hy * hy + hz * hz) + 1e-9
                s = max((nx * hx + ny * hy + nz * hz) / h, 0.0)
                shine = gloss * lit * s ** m[10]
            for c in range(3):
                wrap = 0.0
                if kind == SKIN:  # light that went through flesh comes out red
                    wrap = (0.30, 0.12, 0.06)[c]
                direct = max((cosine + wrap) / (1 + wrap), 0.0) * lit
                around = lamp[3, c] + height_ * (lamp[2, c] - lamp[3, c])
                out[row, col, c] = color[c] * (direct * lamp[1, c] + around) + shine * lamp[1, c]


@numba.njit(cache=True)
def _blur(source, strength):  # type: ignore[no-untyped-def]
    """A mix of the picture and its 3x3 binomial blur."""
    height, width, _ = source.shape
    side = np.float32(0.25) * strength
    middle = np.float32(1.0) - 2 * side
    across = np.empty_like(source)
    out = np.empty_like(source)
    for y in range(height):
        for x in range(width):
            a, b = max(x - 1, 0), min(x + 1, width - 1)
            for c in range(3):
                across[y, x, c] = middle * source[y, x, c] + side * (source[y, a, c] + source[y, b, c])
    for y in range(height):
        a, b = max(y - 1, 0), min(y + 1, height - 1)
        for x in range(width):
            for c in range(3):
                out[y, x, c] = middle * across[y, x, c] + side * (across[a, x, c] + across[b, x, c])
    return out


@numba.njit(cache=True)
def _develop(source, exposure, noise, vignette, seed, gamma, out):  # type: ignore[no-untyped-def]
    height, width, _ = source.shape
    for y in range(height):
        dy = np.float32(2.0 * y / height - 1.0)
        for x in range(width):
            dx = np.float32(2.0 * x / width - 1.0)
            gain = exposure * (1 - vignette * (dx * dx + dy * dy))
            grey = _hash(x, y, 0, seed) + _hash(x, y, 1, seed) - np.float32(1.0)
            for c in range(3):
                value = source[y, x, c] * gain
                # A soft shoulder instead of clipped highlights.
                if value > 0.7:
                    value = 0.7 + 0.3 * (1 - np.exp(-(value - 0.7) / 0.3))
                level = gamma[min(max(int(value * 4095 + 0.5), 0), 4095)]
                level += noise * (grey + np.float32(0.7) * (_hash(x, y, 2 + c, seed) - np.float32(0.5)))
                out[y, x, c] = np.uint8(min(max(level + np.float32(0.5), 0.0), 255.0))
