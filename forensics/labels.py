"""Names as labels of figures."""

import textwrap

from matplotlib.font_manager import findfont, get_font

LONGEST = 40
"""Characters in a line of a label: long paths would leave no room for the figure."""


def as_label(name: str) -> str:
    """A name as a label, drawn as it is, in lines of at most `LONGEST` characters.

    For matplotlib, dollars enclose mathematics, and labels with an underscore in front are hidden.
    A character that its font lacks is drawn by its number, so that such names differ.
    """
    lines = textwrap.wrap(
        name, LONGEST, replace_whitespace=False, drop_whitespace=False, break_on_hyphens=False
    )
    label = "\n".join(map(_drawn, lines))
    return f" {label}" if label.startswith("_") else label


def _drawn(line: str) -> str:
    font = get_font(findfont("DejaVu Sans"))
    return "".join(
        one if font.get_char_index(ord(one)) else f"\\u{ord(one):04x}" for one in line
    ).replace("$", r"\$")
