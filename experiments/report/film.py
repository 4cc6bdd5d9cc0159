"""`rollout.gif`: real | imagined | goal, side by side."""

from __future__ import annotations

import functools
import io
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import matplotlib
import numpy as np
from jaxtyping import Float, UInt8
from PIL import Image, ImageDraw, ImageFont

from wm.experiments.rules import ARENA, Rules

PANEL = 288
"""Side of a panel, pixels."""
FRAME_MS, LAST_MS = 120, 2500
_MARGIN, _TITLE, _CAPTION, _FOOT = 14, 34, 26, 40
_INK, _SOFT, _PAPER, _RULE = "#1d2330", "#667085", "#ffffff", "#d5d9e0"
_DANGER, _PATH, _GOOD, _BAD = (214, 48, 49), (245, 130, 32), "#18794e", "#b42318"
_PALETTE_FRAMES = 8  # pictures that the palette is made from
_FINER = 3  # marks are drawn this many times larger and averaged down


@dataclass(frozen=True)
class Moment:
    """One frame of the film.

    Attributes:
        real: What the camera saw.
        imagined: What the model had predicted, as its decoder draws it; None without a decoder.
        caption: Under the real panel.
        imagined_caption: Under the imagined panel.
        path: ``(K, 2)`` planned path of the robot, world units; None when it is not known.
        foot: Under all panels.
    """

    real: UInt8[np.ndarray, "H W 3"]
    imagined: UInt8[np.ndarray, "H W 3"] | None
    caption: str
    imagined_caption: str = ""
    path: Float[np.ndarray, "K 2"] | None = None
    foot: str = ""


@dataclass(frozen=True)
class Marks:
    """What is drawn over the real panel.

    Attributes:
        world: Side of the pictured square, world units; None where nothing can be drawn in them.
        rules: Forbidden places and the workspace, in world units.
    """

    world: float | None
    rules: Rules = Rules()


def compose(
    moments: Sequence[Moment], goal: UInt8[np.ndarray, "H W 3"], marks: Marks, verdict: str, good: bool | None
) -> list[Image.Image]:
    """The film's pictures.

    Args:
        moments: In order; either all of them have an imagined picture or none has.
        goal: The goal picture as the model sees it.
        marks: Over the real panel.
        verdict: On the last picture.
        good: Colour of the verdict; None is neutral.
    """
    goal_panel = _enlarged(goal)
    pictures = []
    for index, moment in enumerate(moments):
        panels = [("real", _marked(_enlarged(moment.real), marks, moment.path), moment.caption)]
        if moment.imagined is not None:
            panels.append(("imagined", _enlarged(moment.imagined), moment.imagined_caption))
        panels.append(("goal", goal_panel, "the picture that the planner is given"))
        last = index == len(moments) - 1
        colour = (_GOOD if good else _INK if good is None else _BAD) if last else _SOFT
        pictures.append(_page(panels, verdict if last else moment.foot, colour))
    return pictures


def gif(pictures: Sequence[Image.Image]) -> bytes:
    """An endless animation that holds its last picture; one palette for all, so that colours do not flicker."""
    spread = np.linspace(0, len(pictures) - 1, min(len(pictures), _PALETTE_FRAMES)).round().astype(int)
    some = [pictures[i] for i in spread]
    sample = Image.new("RGB", (some[0].width, some[0].height * len(some)))
    for row, picture in enumerate(some):
        sample.paste(picture, (0, row * picture.height))
    palette = _with_white(sample.quantize(256, method=Image.Quantize.MEDIANCUT))
    frames = [picture.quantize(palette=palette, dither=Image.Dither.NONE) for picture in pictures]
    times = [FRAME_MS] * (len(frames) - 1) + [LAST_MS]
    data = io.BytesIO()
    frames[0].save(data, "GIF", save_all=True, append_images=frames[1:], duration=times, loop=0, optimize=False)
    return data.getvalue()


def _with_white(image: Image.Image) -> Image.Image:
    """The near-whites of the palette, averages of white and something else, become white itself."""
    colours = np.array(image.getpalette()).reshape(-1, 3)
    colours[colours.min(1) > 246] = 255
    image.putpalette(colours.flatten().tolist())
    return image


def _page(panels: Sequence[tuple[str, Image.Image, str]], foot: str, colour: str) -> Image.Image:
    width = _MARGIN + (PANEL + _MARGIN) * len(panels)
    page = Image.new("RGB", (width, _TITLE + PANEL + _CAPTION + _FOOT), _PAPER)
    draw = ImageDraw.Draw(page)
    for index, (title, panel, caption) in enumerate(panels):
        left = _MARGIN + index * (PANEL + _MARGIN)
        draw.text((left, _TITLE // 2 + 1), title, _INK, _font(18, bold=True), anchor="lm")
        page.paste(panel, (left, _TITLE))
        draw.rectangle((left - 1, _TITLE - 1, left + PANEL, _TITLE + PANEL), outline=_RULE)
        draw.text((left, _TITLE + PANEL + _CAPTION // 2 + 3), caption, _SOFT, _font(14), anchor="lm")
    middle = _TITLE + PANEL + _CAPTION + _FOOT // 2 + 1
    draw.text((_MARGIN, middle), foot, colour, _font(16, bold=colour != _SOFT), anchor="lm")
    return page


def _enlarged(frame: UInt8[np.ndarray, "H W 3"]) -> Image.Image:
    return Image.fromarray(frame).resize((PANEL, PANEL), Image.Resampling.BICUBIC)


def _marked(panel: Image.Image, marks: Marks, path: Float[np.ndarray, "K 2"] | None) -> Image.Image:
    """Forbidden discs, workspace and planned path over a panel."""
    if marks.world is None:
        return panel
    side, scale = PANEL * _FINER, PANEL * _FINER / marks.world
    layer = Image.new("RGBA", (side, side), (255, 255, 255, 0))
    draw = ImageDraw.Draw(layer)
    style: dict[str, Any] = {"fill": (*_DANGER, 60), "outline": (*_DANGER, 255), "width": 2 * _FINER}
    for x, y, radius in marks.rules.keep_out:
        corners = [(x - radius) * scale, (y - radius) * scale, (x + radius) * scale, (y + radius) * scale]
        draw.ellipse(corners, **style)
    for box in marks.rules.keep_out_boxes:
        draw.rectangle([v * scale for v in box], **style)
    for polygon in marks.rules.keep_out_polygons:
        draw.polygon([(x * scale, y * scale) for x, y in polygon], **style)
    if marks.rules.workspace != ARENA:
        draw.rectangle([v * scale for v in marks.rules.workspace], outline=style["outline"], width=style["width"])
    if path is not None and len(path) > 1:
        points = [(float(x) * scale, float(y) * scale) for x, y in path]
        draw.line(points, fill=(*_PATH, 255), width=2 * _FINER, joint="curve")
        (x, y), r = points[-1], 3.5 * _FINER
        draw.ellipse((x - r, y - r, x + r, y + r), fill=(*_PATH, 255))
    layer = layer.resize((PANEL, PANEL), Image.Resampling.BOX)
    return Image.alpha_composite(panel.convert("RGBA"), layer).convert("RGB")


@functools.lru_cache(maxsize=8)
def _font(size: int, bold: bool = False) -> ImageFont.FreeTypeFont:
    """matplotlib's own font, which is there wherever the package is."""
    name = "DejaVuSans-Bold.ttf" if bold else "DejaVuSans.ttf"
    return ImageFont.truetype(str(Path(matplotlib.get_data_path()) / "fonts" / "ttf" / name), size)
