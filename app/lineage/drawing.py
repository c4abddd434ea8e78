"""Where the boxes and links of a lineage are drawn: a column for each generation, from left to right."""

import unicodedata
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from statistics import mean

from app.lineage.schemas import LineageAnswer, LineageItem
from app.lineage.service import generations

BOX_WIDTH, BOX_HEIGHT = 196, 46  # pixels
GAP_X, GAP_Y, MARGIN = 52, 14, 6
MAX_WIDTH = 21  # of a text in a box, in Latin letters


@dataclass(frozen=True)
class Box:
    """An item at its place, its texts cut to fit."""

    item: LineageItem
    x: int
    y: int
    name: str
    detail: str


@dataclass(frozen=True)
class Drawing:
    """The parts of the drawing; `paths` are those of the links."""

    width: int
    height: int
    boxes: list[Box]
    paths: list[str]


def draw(lineage: LineageAnswer, kind_words: Mapping[str, str]) -> Drawing:
    """The drawing of a lineage; `kind_words` name the kinds of items."""
    links = [(link.source, link.target) for link in lineage.links]
    ranks = generations([item.id for item in lineage.items], links)
    columns: list[list[str]] = [[] for _rank in range(max(ranks.values()) + 1)]
    for item in lineage.items:
        columns[ranks[item.id]].append(item.id)
    num_rows = max(len(members) for members in columns)
    places: dict[str, tuple[int, int]] = {}
    for column, members in enumerate(columns):
        top = MARGIN + (num_rows - len(members)) * (BOX_HEIGHT + GAP_Y) // 2
        for row, item_id in enumerate(_sorted_by_sources(members, links, places)):
            places[item_id] = (MARGIN + column * (BOX_WIDTH + GAP_X), top + row * (BOX_HEIGHT + GAP_Y))
    return Drawing(
        width=2 * MARGIN + len(columns) * (BOX_WIDTH + GAP_X) - GAP_X,
        height=2 * MARGIN + num_rows * (BOX_HEIGHT + GAP_Y) - GAP_Y,
        boxes=[_box(item, *places[item.id], kind_words) for item in lineage.items],
        paths=[_path(places[source], places[target]) for source, target in links],
    )


def _sorted_by_sources(
    members: Sequence[str], links: Sequence[tuple[str, str]], places: Mapping[str, tuple[int, int]]
) -> list[str]:
    """The items of a column in the order of the mean heights of what they come from, so that few links cross."""

    def height(item_id: str) -> float:
        heights = [places[source][1] for source, target in links if target == item_id and source in places]
        return mean(heights) if heights else 0.0

    return sorted(members, key=height)


def _box(item: LineageItem, x: int, y: int, kind_words: Mapping[str, str]) -> Box:
    detail = " · ".join(part for part in (kind_words[item.kind], item.detail) if part)
    return Box(item, x, y, shortened(item.name), shortened(detail, MAX_WIDTH + 5))


def _path(source: tuple[int, int], target: tuple[int, int]) -> str:
    """A curve from the right edge of a box to the left edge of another one."""
    x1, y1 = source[0] + BOX_WIDTH, source[1] + BOX_HEIGHT // 2
    x2, y2 = target[0], target[1] + BOX_HEIGHT // 2
    bend = GAP_X // 2
    return f"M{x1} {y1}C{x1 + bend} {y1} {x2 - bend} {y2} {x2} {y2}"


def shortened(text: str, width: int = MAX_WIDTH) -> str:
    """A text that is no wider than so many Latin letters; Chinese characters count twice."""
    used = 0
    for place, character in enumerate(text):
        used += 2 if unicodedata.east_asian_width(character) in "WF" else 1
        if used > width:
            return text[: max(1, place - 1)].rstrip() + "…"
    return text
