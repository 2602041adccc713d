"""The ratios as a picture: SVG, drawn by these few lines."""

from collections.abc import Mapping
from typing import Any
from xml.sax.saxutils import escape

LABELS, BARS, LINE = 300, 420, 22
"""Pixels: the names' width, the bars' at the largest ratio, a row's height."""

MOST = 2.0
"""Ratios beyond it are drawn as long as this."""

MET, MISSED, OPEN = "#2a7f4f", "#b5472f", "#6b7280"


def bars(document: Mapping[str, Any]) -> list[tuple[str, float, float | None, bool | None]]:
    """Name, ratio, bound and verdict of each row that has a rate and a floor."""
    found = []
    for row in document["rows"]:
        psubd, floor = row["parts"].get("psubd", {}), row["parts"].get("floor", {})
        target = next((target for target in row["targets"] if target["what"].startswith("rate")), None)
        if target is not None and target["value"] is not None:
            found.append((row["name"], target["value"], target["bound"], target["met"]))
        elif target is None and psubd.get("rate") and floor.get("rate"):
            found.append((row["name"], psubd["rate"] / floor["rate"], None, None))
    return found


def bar(at: int, name: str, value: float, bound: float | None, met: bool | None) -> str:
    top, length = 40 + at * LINE, min(value, MOST) / MOST * BARS
    colour = {True: MET, False: MISSED, None: OPEN}[met]
    drawn = f'<text x="{LABELS - 8}" y="{top + 14}" text-anchor="end">{escape(name)}</text>'
    drawn += f'<rect x="{LABELS}" y="{top + 2}" width="{length:.1f}" height="{LINE - 6}" fill="{colour}"/>'
    drawn += f'<text x="{LABELS + length + 6:.1f}" y="{top + 14}">{value:.2f}</text>'
    if bound is not None:
        x = LABELS + min(bound, MOST) / MOST * BARS
        drawn += f'<line x1="{x:.1f}" x2="{x:.1f}" y1="{top - 1}" y2="{top + LINE - 3}" stroke="#111" stroke-width="2"/>'
    return drawn


def chart(document: Mapping[str, Any]) -> str:
    """A bar for each row's ratio to its floor, and a stroke where its target is."""
    drawn = [bar(at, *one) for at, one in enumerate(bars(document))]
    height = 60 + len(drawn) * LINE
    title = "psubd's rate, of its floor's. Stroke: the target. Green: met, red: not, grey: no target"
    return (
        f'<svg xmlns="http://www.w3.org/2000/svg" width="{LABELS + BARS + 80}" height="{height}" font-family="sans-serif" font-size="12">\n'
        f'<rect width="100%" height="100%" fill="#fff"/>\n<text x="10" y="22" font-size="14">{escape(title)}</text>\n'
        + "\n".join(drawn)
        + "\n</svg>\n"
    )
