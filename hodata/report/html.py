"""The parts that all HTML pages of the project are made of: head, tables, colour chips, pictures as data.

A page needs no network and no other file. Names in shards are anybody's words: every one of them is escaped, and a
content security policy lets nothing run or load but what these modules wrote.
"""

from __future__ import annotations

import base64
import hashlib
import io
from collections.abc import Iterable, Sequence
from html import escape
from importlib.resources import files

import numpy as np
from numpy.typing import NDArray

from hodata.labels import COLORS, Label

_JPEG_QUALITY = 82


def resource(name: str, package: str = __package__) -> str:
    """The text of a file beside the modules of a package: `page.css`."""
    return files(package).joinpath(name).read_text(encoding="utf-8")


def head(title: str, style: str, script: str = "", *, connects: bool = False) -> str:
    """The page up to its first visible element; of all scripts only this one may run, and only with `connects` may it
    talk, to the server that the page came from."""
    allowed = "'none'"
    if script:
        allowed = f"'sha256-{base64.b64encode(hashlib.sha256(script.encode()).digest()).decode()}'"
    policy = f"default-src 'none'; img-src data:; style-src 'unsafe-inline'; script-src {allowed}"
    if connects:
        policy += "; connect-src 'self'"
    return _HEAD.format(policy=policy, title=escape(title), style=style)


_HEAD = """<!doctype html>
<html lang="en">
<meta charset="utf-8">
<meta name="viewport" content="width=device-width, initial-scale=1">
<meta http-equiv="Content-Security-Policy" content="{policy}">
<title>{title}</title>
<style>{style}</style>
"""


def table(title: str, note: str, heads: Sequence[str], rows: Iterable[Sequence[str]], *, chips: bool = False) -> str:
    """A table of plain text; the first cell of a row is its heading, with `chips` after a colour of that label."""
    head = "".join(f'<th scope="col">{escape(name)}</th>' for name in heads)
    body = "".join(
        f'<tr><th scope="row">{chip(row[0]) if chips else ""}{escape(row[0])}</th>'
        + "".join(f"<td>{escape(cell)}</td>" for cell in row[1:])
        + "</tr>"
        for row in rows
    )
    return (
        f'<div class="table"><table><caption><b>{escape(title)}</b> {escape(note)}</caption>'
        f"<thead><tr>{head}</tr></thead><tbody>{body}</tbody></table></div>\n"
    )


def chip(label: str) -> str:
    """A small square in a label's colour; nothing for background and for what is no label."""
    color = next((COLORS[known] for known in Label if known.label_name == label), None)
    if color is None or label == Label.BACKGROUND.label_name:
        return ""
    kind = "chip void" if label == Label.VOID.label_name else "chip"
    return f'<i class="{kind}" style="background-color:rgb{color}"></i>'


def jpeg(image: NDArray[np.uint8]) -> str:
    """A data URI of uint8 [H, W, 3]."""
    from PIL import Image

    buffer = io.BytesIO()
    Image.fromarray(image).save(buffer, format="JPEG", quality=_JPEG_QUALITY)
    return _data_uri("image/jpeg", buffer.getvalue())


def png(layer: NDArray[np.uint8]) -> str:
    """A data URI of uint8 [H, W, 3 or 4], lossless."""
    from PIL import Image

    buffer = io.BytesIO()
    Image.fromarray(layer).save(buffer, format="PNG", optimize=True)
    return _data_uri("image/png", buffer.getvalue())


def _data_uri(kind: str, data: bytes) -> str:
    return f"data:{kind};base64,{base64.b64encode(data).decode()}"
