"""Colour for every pixel: textures under a lamp with shadows and light from all around.

All colours are linear RGB; `develop` makes pictures of them.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from hodata.kernels import njit
from hodata.pose.camera import intrinsics, look_at, transform
from hodata.pose.rasterize import Raster, corner_weights, rasterize
from hodata.synth.textures import SKIN, lattice_hash, mixing, skin, value_noise

Array = NDArray[np.float64]

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


@njit(error_model="numpy", inline="always")
def _within(place, count):  # type: ignore[no-untyped-def]
    return min(max(int(place), 0), count - 1)


@njit(error_model="numpy")
def _lit(depth, T, K, px, py, pz, softness, jitter):  # type: ignore[no-untyped-def]
    """The part of the lamp that reaches a point: two looks at the shadow map, four at the edge of a shadow."""
    x = T[0, 0] * px + T[0, 1] * py + T[0, 2] * pz + T[0, 3]
    y = T[1, 0] * px + T[1, 1] * py + T[1, 2] * pz + T[1, 3]
    z = T[2, 0] * px + T[2, 1] * py + T[2, 2] * pz + T[2, 3]
    u = K[0, 0] * x / z + K[0, 2]
    v = K[1, 1] * y / z + K[1, 2]
    if not (2 < u < depth.shape[1] - 3 and 2 < v < depth.shape[0] - 3):
        return 1.0
    other = jitter * 7.31
    other -= np.floor(other)
    ax, ay = u + 0.5 + 0.7 * softness * (jitter - 0.5), v + 0.5 + 0.7 * softness * (other - 0.5)
    half = 0.5 * softness
    rows, columns = depth.shape
    z -= 0.005
    near = z < depth[_within(ay - half, rows), _within(ax - half, columns)]
    far = z < depth[_within(ay + half, rows), _within(ax + half, columns)]
    if near == far:  # not at the edge of a shadow
        return 1.0 if near else 0.0
    total = 0.25
    total += 0.25 if z < depth[_within(ay - half, rows), _within(ax + half, columns)] else 0.0
    total += 0.25 if z < depth[_within(ay + half, rows), _within(ax - half, columns)] else 0.0
    return total


@njit(error_model="numpy")
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
                gloss += skin(m, marks, x, y, z, color)
            else:
                t = mixing(m, x, y, z)
                grain = 1.0
                if m[8] > 0:
                    grain += m[8] * (value_noise(x * 160, y * 160, z * 160, int(m[11]) + 5) - 0.5)
                color[0] = grain * (m[1] + t * (m[4] - m[1]))
                color[1] = grain * (m[2] + t * (m[5] - m[2]))
                color[2] = grain * (m[3] + t * (m[6] - m[3]))
            cosine = nx * lamp[0, 0] + ny * lamp[0, 1] + nz * lamp[0, 2]
            lit = 0.0
            if cosine > -0.3:
                jitter = lattice_hash(row, col, 11, 5)
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
