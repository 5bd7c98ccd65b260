"""Line charts as SVG, drawn by hand: panels one below the other, one legend, readable on light and dark pages."""

import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from html import escape

# Mid-tones, which stand out against white and against black; the dashes tell lines apart where colours do not.
_GREY = "#6e7781"
_STROKES = (
    ("#0f9d75", ""),
    ("#d1495b", "7 3"),
    ("#3b82c4", "2 3"),
    ("#b7791f", "9 3 2 3"),
    ("#8b6fc0", "5 2"),
    ("#6b8e23", "12 4"),
)
_WIDTH = 860
_LEFT, _RIGHT = 70, 20
_PANEL_HEIGHT, _PANEL_GAP = 190, 56
_TITLE_HEIGHT = 64
_LEGEND_COLUMNS, _LEGEND_ROW_HEIGHT = 3, 20
_AXIS_HEIGHT = 52
_MOST_STEPS = 7


@dataclass(frozen=True, slots=True)
class Panel:
    """One pair of axes.

    Args:
        title: what is shown, with its unit.
        lines: by name, the points (x, y) in the order of x; where y is None, the line has a gap.
        top: where the y axis, which begins at 0, ends at the least.
    """

    title: str
    lines: Mapping[str, Sequence[tuple[float, float | None]]]
    top: float


@dataclass(frozen=True, slots=True)
class Chart:
    """Panels with a common x axis from 0 to `right`; a name has the same stroke in all of them.

    Args:
        description: for those who cannot see it.
        x_label: of the x axis, with its unit.
        right: where the x axis ends.
    """

    title: str
    description: str
    x_label: str
    right: float
    panels: Sequence[Panel]


def render(chart: Chart) -> str:
    """Draw it as one SVG document.

    Raises:
        ValueError: an axis has no length, or there are more lines than strokes to tell them apart.
    """
    names = list(dict.fromkeys(name for panel in chart.panels for name in panel.lines))
    if len(names) > len(_STROKES):
        raise ValueError(f"{len(names)} lines are more than the {len(_STROKES)} that can be told apart")
    if not (chart.right > 0 and all(panel.top > 0 for panel in chart.panels)):
        raise ValueError("an axis must end above 0")
    strokes = dict(zip(names, _STROKES, strict=False))
    panels_top = _TITLE_HEIGHT + _LEGEND_ROW_HEIGHT * math.ceil(len(names) / _LEGEND_COLUMNS)
    height = panels_top + len(chart.panels) * (_PANEL_HEIGHT + _PANEL_GAP) - _PANEL_GAP + _AXIS_HEIGHT
    size = f'viewBox="0 0 {_WIDTH} {height}"'
    font = f'font-family="system-ui, sans-serif" font-size="13" fill="{_GREY}"'
    return "\n".join(
        [
            f'<svg xmlns="http://www.w3.org/2000/svg" {size} role="img" aria-labelledby="title description" {font}>',
            f'<title id="title">{escape(chart.title)}</title>',
            f'<desc id="description">{escape(chart.description)}</desc>',
            _text(_LEFT, 24, chart.title, size=16, weight="bold"),
            *_legend(strokes),
            *(
                part
                for number, panel in enumerate(chart.panels)
                for part in _panel(panel, panels_top + number * (_PANEL_HEIGHT + _PANEL_GAP), chart, strokes)
            ),
            _text(_WIDTH - _RIGHT, height - 12, chart.x_label, anchor="end"),
            "</svg>\n",
        ]
    )


def ticks(end: float) -> list[float]:
    """Round figures from 0 up to `end`, at most eight of them."""
    step = 10.0 ** math.floor(math.log10(end))
    while end / step < _MOST_STEPS / 2:
        step /= 2
    while end / step > _MOST_STEPS:
        step *= 2
    return [number * step for number in range(int(end / step + 1e-9) + 1)]


def _legend(strokes: Mapping[str, tuple[str, str]]) -> Iterator[str]:
    column_width = (_WIDTH - _LEFT - _RIGHT) / _LEGEND_COLUMNS
    for number, (name, stroke) in enumerate(strokes.items()):
        row, column = divmod(number, _LEGEND_COLUMNS)
        x, y = _LEFT + column * column_width, 46 + row * _LEGEND_ROW_HEIGHT
        yield f'<path d="M{x:.1f} {y}h28" {_stroke(stroke, number)}/>'
        yield _text(x + 36, y + 4, name)


def _panel(panel: Panel, top: float, chart: Chart, strokes: Mapping[str, tuple[str, str]]) -> Iterator[str]:
    width = _WIDTH - _LEFT - _RIGHT
    highest = max((y for line in panel.lines.values() for _, y in line if y is not None), default=0.0)
    y_end = max(panel.top, highest)

    def place(x: float, y: float) -> str:
        return f"{_LEFT + width * x / chart.right:.1f} {top + _PANEL_HEIGHT * (1 - y / y_end):.1f}"

    yield _text(_LEFT, top - 8, panel.title)
    for y in ticks(y_end):
        yield f'<path d="M{place(0, y)}h{width}" stroke="{_GREY}" stroke-opacity="{0.3 if y else 1}"/>'
        yield _text(_LEFT - 8, top + _PANEL_HEIGHT * (1 - y / y_end) + 4, f"{y:g}", anchor="end")
    for x in ticks(chart.right):
        yield f'<path d="M{place(x, 0)}v5" stroke="{_GREY}"/>'
        yield _text(_LEFT + width * x / chart.right, top + _PANEL_HEIGHT + 19, f"{x:g}", anchor="middle")
    numbers = {name: number for number, name in enumerate(strokes)}
    for name in reversed(list(panel.lines)):  # so that the first one lies on top
        path = "".join(_steps(panel.lines[name], place))
        stroke = _stroke(strokes[name], numbers[name])
        yield f'<path class="line" d="{path}" {stroke}><title>{escape(name)}</title></path>'


def _steps(line: Sequence[tuple[float, float | None]], place: Callable[[float, float], str]) -> Iterator[str]:
    pen_down = False
    for x, y in line:
        if y is not None:
            yield f"{'L' if pen_down else 'M'}{place(x, y)}"
        pen_down = y is not None


def _stroke(stroke: tuple[str, str], number: int) -> str:
    colour, dashes = stroke
    dashed = f' stroke-dasharray="{dashes}"' if dashes else ""
    return f'fill="none" stroke="{colour}" stroke-width="{2 if number else 3}" stroke-linejoin="round"{dashed}'


def _text(x: float, y: float, words: str, *, anchor: str = "start", size: int = 13, weight: str = "normal") -> str:
    return (
        f'<text x="{x:.1f}" y="{y:.1f}" text-anchor="{anchor}" font-size="{size}" font-weight="{weight}">'
        f"{escape(words)}</text>"
    )
