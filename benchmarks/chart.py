"""Charts as SVG, by matplotlib: lines in panels, and bars. They can be read on light and on dark pages."""

import io
import re
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from html import escape
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from matplotlib.figure import Figure

# Mid-tones stand out against white and against black; dashes tell lines apart where colours do not.
_GREY = "#6e7781"
_STROKES: tuple[tuple[str, Any], ...] = (
    ("#0f9d75", "-"),
    ("#d1495b", (0, (5, 2))),
    ("#3b82c4", (0, (1, 2))),
    ("#b7791f", (0, (6, 2, 1, 2))),
    ("#8b6fc0", (0, (3, 1))),
    ("#6b8e23", (0, (9, 3))),
)
_WIDTH_INCHES = 9.0
_PANEL_INCHES, _BAR_INCHES, _HEAD_INCHES = 2.6, 0.36, 0.5
_STYLE: dict[Any, Any] = {
    "svg.fonttype": "none",  # text stays text: it can be searched, read aloud, and takes the page's fonts
    "svg.hashsalt": "metasync",  # the same figures give the same file
    "font.family": "sans-serif",
    "font.size": 10,
    **dict.fromkeys(("text.color", "axes.labelcolor", "axes.edgecolor", "xtick.color", "ytick.color"), _GREY),
    "grid.color": _GREY,
    "grid.alpha": 0.3,
}


@dataclass(frozen=True, slots=True)
class Panel:
    """One pair of axes.

    Args:
        title: the figure, with its unit.
        lines: by name, the points (x, y) in the order of x; where y is None, the line has a gap.
        top: the least end of the y axis, which begins at 0.
    """

    title: str
    lines: Mapping[str, Sequence[tuple[float, float | None]]]
    top: float


@dataclass(frozen=True, slots=True)
class Chart:
    """Panels with a common x axis from 0 to `right`; a name has the same stroke in all of them.

    Args:
        description: for people who cannot see the chart.
        x_label: of the x axis, with its unit.
        right: the end of the x axis.
    """

    title: str
    description: str
    x_label: str
    right: float
    panels: Sequence[Panel]


@dataclass(frozen=True, slots=True)
class Bar:
    """One bar: the median of several runs, with a line from the least to the greatest.

    Args:
        label: the median as people read it.
    """

    name: str
    least: float
    median: float
    greatest: float
    label: str


def lines(chart: Chart) -> str:
    """Draw a line chart as one SVG document.

    Raises:
        ValueError: an axis has no length, or there are more lines than strokes to tell them apart.
    """
    names = list(dict.fromkeys(name for panel in chart.panels for name in panel.lines))
    if len(names) > len(_STROKES):
        raise ValueError(f"{len(names)} lines are more than the {len(_STROKES)} that can be told apart")
    if not (chart.right > 0 and all(panel.top > 0 for panel in chart.panels)):
        raise ValueError("an axis must end above 0")
    with _figure(_HEAD_INCHES + _PANEL_INCHES * len(chart.panels)) as figure:
        figure.suptitle(chart.title, fontweight="bold")
        drawn: dict[str, Any] = {}
        for number, panel in enumerate(chart.panels, 1):
            axes = figure.add_subplot(len(chart.panels), 1, number)
            axes.set_title(panel.title, loc="left", fontsize="medium")
            axes.grid(visible=True, axis="y")
            highest = panel.top
            for name, points in panel.lines.items():
                colour, dashes = _STROKES[names.index(name)]
                heights = [float("nan") if y is None else y for _, y in points]
                (line,) = axes.plot([x for x, _ in points], heights, color=colour, linestyle=dashes, label=name)
                line.set_gid(f"line {number} {name}")
                line.set_zorder(3 - names.index(name) / 10)  # the first one lies on top
                highest = max(highest, *(y for _, y in points if y is not None), 0.0)
                drawn.setdefault(name, line)
            axes.set_xlim(0, chart.right)
            axes.set_ylim(0, highest)
        axes.set_xlabel(chart.x_label, loc="right")
        figure.legend(list(drawn.values()), list(drawn), loc="outside lower center", ncols=3, frameon=False)
        return _document(figure, chart.title, chart.description)


def bars(title: str, measured: Sequence[Bar]) -> str:
    """Draw horizontal bars, the first on top, as one SVG document."""
    with _figure(_HEAD_INCHES + _BAR_INCHES * len(measured)) as figure:
        figure.suptitle(title, fontweight="bold", x=0.01, ha="left")
        axes = figure.add_subplot()
        medians = [bar.median for bar in measured]
        spread = [[bar.median - bar.least for bar in measured], [bar.greatest - bar.median for bar in measured]]
        drawn = axes.barh([bar.name for bar in measured], medians, xerr=spread, color=_STROKES[0][0], ecolor=_GREY)
        for place, (bar, rectangle) in enumerate(zip(measured, drawn, strict=True)):
            rectangle.set_gid(f"bar {bar.name}")
            axes.annotate(
                bar.label, (bar.greatest, place), xytext=(6, 0), textcoords="offset points", va="center", color=_GREY
            )
        axes.invert_yaxis()
        axes.set_xlim(0, 1.12 * max([bar.greatest for bar in measured], default=0) or 1)
        axes.xaxis.set_visible(False)
        axes.tick_params(axis="y", length=0)
        axes.spines[:].set_visible(False)
        return _document(figure, title, "")


@contextmanager
def _figure(height_inches: float) -> Iterator["Figure"]:
    """Begin a drawing in our style; matplotlib is slow to import, and only who draws has to wait for it."""
    import matplotlib as mpl  # noqa: PLC0415
    from matplotlib.figure import Figure  # noqa: PLC0415

    with mpl.rc_context(_STYLE):
        yield Figure(figsize=(_WIDTH_INCHES, height_inches), layout="constrained")


def _document(figure: "Figure", title: str, description: str) -> str:
    """Return the drawing as SVG, with a description for people who cannot see it, and without today's date."""
    written = io.StringIO()
    figure.savefig(
        written, format="svg", transparent=True, metadata={"Date": None, "Creator": None, "Type": None, "Format": None}
    )
    drawing = re.sub(r" +$", "", written.getvalue(), flags=re.MULTILINE)
    said = f'<title id="title">{escape(title)}</title>\n'
    said += f'<desc id="description">{escape(description)}</desc>\n' if description else ""
    labels = 'role="img" aria-labelledby="title description"' if description else 'role="img" aria-labelledby="title"'
    return re.sub(r"<svg ([^>]*)>\n", lambda found: f"<svg {labels} {found[1]}>\n{said}", drawing, count=1)
