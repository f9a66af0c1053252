"""Names as labels of figures."""

from matplotlib.font_manager import findfont, get_font


def as_label(name: str) -> str:
    """A name as a label, drawn as it is.

    For matplotlib, dollars enclose mathematics, and labels with an underscore in front are hidden.
    A character that its font lacks is drawn by its number, so that such names differ.
    """
    font = get_font(findfont("DejaVu Sans"))
    drawn = "".join(
        one if font.get_char_index(ord(one)) else f"\\u{ord(one):04x}" for one in name
    ).replace("$", r"\$")
    return f" {drawn}" if drawn.startswith("_") else drawn
