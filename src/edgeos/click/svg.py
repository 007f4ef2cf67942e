"""A configuration as a drawing in SVG, made without any other program."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from itertools import pairwise
from xml.sax.saxutils import escape

from edgeos.click.element import Element
from edgeos.click.labels import Labels
from edgeos.click.layout import Layout, lay_out
from edgeos.click.router import Router

# All in pixels.
CHARACTER = 6.6
LINE = 15.0
PADDING = 9.0
GAP = 22.0
ROW_GAP = 34.0
MARGIN = 14.0
PORT = 4.0

_STYLE = (
    "text{font:11px ui-monospace,Menlo,Consolas,monospace;text-anchor:middle;fill:#1b2733}"
    ".of{fill:#4a6078}.port{font-size:9px;fill:#6b7b8c}"
    "rect{fill:#f4f7fa;stroke:#51667a}path{fill:none;stroke:#51667a}.push{fill:#51667a}.pull{fill:#fff}"
    "polygon{stroke:#51667a}"
)


def svg(router: Router) -> str:
    """The drawing: packets run downwards; triangles at ports are full where they are pushed, hollow where pulled."""
    elements = router.elements
    index = {element: number for number, element in enumerate(elements)}
    labels = Labels(router)
    texts = [labels.short(element) for element in elements]
    widths = [max(len(line) for line in lines) * CHARACTER + 2 * PADDING for lines in texts]
    edges = [(index[source], index[target]) for source, _, target, _ in router.connections]
    layout = lay_out(widths, edges, GAP)
    return _Drawing(router, labels, widths, layout).text()


class _Drawing:
    def __init__(self, router: Router, labels: Labels, widths: Sequence[float], layout: Layout) -> None:
        self.router = router
        self.labels = labels
        self.widths = widths
        self.layout = layout
        self.height = 2 * LINE + 2 * PADDING  # of a box, which holds up to two lines
        self.index = {element: number for number, element in enumerate(router.elements)}

    def text(self) -> str:
        width = self.layout.width + 2 * MARGIN
        height = self.layout.rows * (self.height + ROW_GAP) - ROW_GAP + 2 * MARGIN
        lines = [
            f'<svg xmlns="http://www.w3.org/2000/svg" width="{width:.0f}" height="{height:.0f}" '
            f'viewBox="0 0 {width:.0f} {height:.0f}">',
            f"<style>{_STYLE}</style>",
            '<rect width="100%" height="100%" style="fill:#fff;stroke:none"/>',
            *self._lines(),
            *self._boxes(),
            "</svg>",
        ]
        return "\n".join(lines) + "\n"

    def _top(self, row: int) -> float:
        return MARGIN + row * (self.height + ROW_GAP)

    def _port(self, element: Element, out: bool, number: int) -> tuple[float, float]:
        """Where a port is: ports stand evenly along the lower or the upper side of the box."""
        node = self.index[element]
        count = element.n_outputs if out else element.n_inputs
        left = MARGIN + self.layout.middle[node] - self.widths[node] / 2
        top = self._top(self.layout.row[node])
        return left + self.widths[node] * (number + 1) / (count + 1), top + (self.height if out else 0.0)

    def _lines(self) -> Iterator[str]:
        for (source, output, target, number), corners in zip(self.router.connections, self.layout.lines, strict=True):
            points = [self._port(source, True, output)]
            downwards = self.layout.row[self.index[source]] < self.layout.row[self.index[target]]
            for middle, row in corners:
                ends = [(MARGIN + middle, self._top(row)), (MARGIN + middle, self._top(row) + self.height)]
                points += ends if downwards else ends[::-1]
            points.append(self._port(target, False, number))
            yield f'<path d="{_curve(points, downwards)}"/>'

    def _boxes(self) -> Iterator[str]:
        for node, element in enumerate(self.router.elements):
            middle, top = MARGIN + self.layout.middle[node], self._top(self.layout.row[node])
            width = self.widths[node]
            place = f'x="{middle - width / 2:.1f}" y="{top:.1f}" width="{width:.1f}" height="{self.height:.1f}"'
            yield f"<g><title>{escape(self.labels.full(element))}</title>"
            yield f'<rect {place} rx="5"/>'
            lines = self.labels.short(element)
            first = top + self.height / 2 - (len(lines) - 1) * LINE / 2 + 4
            for number, line in enumerate(lines):
                of = ' class="of"' if number == len(lines) - 1 else ""
                yield f'<text x="{middle:.1f}" y="{first + number * LINE:.1f}"{of}>{escape(line)}</text>'
            yield from self._ports(element)
            yield "</g>"

    def _ports(self, element: Element) -> Iterator[str]:
        for out, kinds in ((False, element.pushes_in), (True, element.pushes_out)):
            for number, pushes in enumerate(kinds):
                x, y = self._port(element, out, number)
                upper = y if out else y - PORT
                corners = f"{x - PORT:.1f},{upper:.1f} {x + PORT:.1f},{upper:.1f} {x:.1f},{upper + PORT:.1f}"
                yield f'<polygon class="{"push" if pushes else "pull"}" points="{corners}"/>'
                if len(kinds) > 1:
                    yield f'<text class="port" x="{x + 8:.1f}" y="{y + (12 if out else -5):.1f}">{number}</text>'


def _curve(points: Sequence[tuple[float, float]], downwards: bool) -> str:
    """A smooth line through the points, which leaves the first and reaches the last one downwards."""
    way = 1 if downwards else -1
    ways = [1, *[way] * (len(points) - 2), 1]
    parts = [f"M{points[0][0]:.1f},{points[0][1]:.1f}"]
    for ((x, y), here), ((to_x, to_y), there) in pairwise(zip(points, ways, strict=True)):
        bend = max(abs(to_y - y) / 2, 14.0)
        parts.append(f"C{x:.1f},{y + here * bend:.1f} {to_x:.1f},{to_y - there * bend:.1f} {to_x:.1f},{to_y:.1f}")
    return "".join(parts)
