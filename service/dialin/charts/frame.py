"""The frame of every chart: the size of the drawing, its axes with their labels, its title and description."""

from __future__ import annotations

from markupsafe import Markup

from dialin.charts.svg import Scale, tag, tick_text

WIDTH, HEIGHT = 460, 280  # size of a chart in the units of its view box; the page scales it
LEFT, RIGHT, TOP, BOTTOM = 56, 446, 34, 236  # edges of the plot area


def chart(name: str, title: str, about: str, *parts: Markup) -> Markup:
    """Return a chart of these parts, with a title and a description for screen readers.

    `name`: the class of the chart, unique on a page.
    """
    return tag(
        "svg",
        tag("title", title, id=f"{name}-title"),
        tag("desc", about, id=f"{name}-about"),
        *parts,
        class_=f"chart {name}",
        viewBox=f"0 0 {WIDTH} {HEIGHT}",
        role="img",
        aria_labelledby=f"{name}-title {name}-about",
    )


def empty_chart(name: str, title: str, why: str) -> Markup:
    """Return a chart without data, which says `why` there is none."""
    note = tag("text", why, class_="empty", x=WIDTH / 2, y=HEIGHT / 2, text_anchor="middle")
    return chart(name, title, why, baseline(), note)


def axes(across: Scale, up: Scale, x_title: str, y_title: str) -> Markup:
    """Return both axes of a chart whose horizontal axis counts something, such as epochs."""
    return Markup("").join((y_axis(up, y_title), x_axis(across, x_title, whole=True)))


def y_axis(up: Scale, title: str) -> Markup:
    """Return horizontal grid lines with their values, and the title above them."""
    lines = [
        tag("g", tag("line", class_="grid", x1=LEFT, x2=RIGHT, y1=up(tick), y2=up(tick)),
            tag("text", tick_text(tick), x=LEFT - 7, y=up(tick) + 4, text_anchor="end"))
        for tick in up.ticks(5)
    ]  # fmt: skip
    return tag("g", tag("text", title, class_="axis-title", x=6, y=14), *lines, class_="axis")


def x_axis(across: Scale, title: str, whole: bool = False) -> Markup:
    """Return the base line with its values, and the title below. `whole`: only whole numbers are labelled."""
    ticks = [tick for tick in across.ticks(6) if not whole or tick == round(tick)]
    labels = [tag("text", tick_text(tick), x=across(tick), y=BOTTOM + 18, text_anchor="middle") for tick in ticks]
    below = tag("text", title, class_="axis-title", x=RIGHT, y=HEIGHT - 6, text_anchor="end")
    return tag("g", baseline(), *labels, below, class_="axis")


def baseline() -> Markup:
    """Return the horizontal line below the plot area."""
    return tag("line", class_="baseline", x1=LEFT, x2=RIGHT, y1=BOTTOM, y2=BOTTOM)
