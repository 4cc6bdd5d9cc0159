"""What the reports' figures share: quiet axes, and PNG without a date or a version in it."""

from __future__ import annotations

import io

from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator


def tidied_png(figure: Figure) -> bytes:
    """The figure as PNG; each of its axes over whole steps, with a bold title and without a box."""
    for axis in figure.axes:
        axis.spines[["top", "right"]].set_visible(False)
        axis.title.set_fontweight("bold")
        axis.xaxis.set_major_locator(MaxNLocator(integer=True, steps=[1, 2, 5, 10]))
    return png(figure)


def png(figure: Figure) -> bytes:
    """The figure as PNG, as it is."""
    FigureCanvasAgg(figure)
    data = io.BytesIO()
    figure.savefig(data, format="png", dpi=110, metadata={"Software": None})
    return data.getvalue()
