"""Names of files and labels made safe to show: on one line of a terminal, and in a cell of a spreadsheet."""

from typing import Any

__all__ = ["harmless_cell", "printable_line"]

# How a formula begins, in full width too.
_FORMULA_STARTS = ("=", "+", "-", "@", "\uff1d", "\uff0b", "\uff0d", "\uff20")


def printable_line(text: str) -> str:
    r"""Return text that any terminal can print on one line, such as the name of a file, which may hold line ends.

    Examples
    --------
    >>> print(printable_line("a\nb\udcff.png"))
    a\nb\xff.png
    """
    return "".join(char if char.isprintable() else _escaped(char) for char in text)


def harmless_cell(cell: Any) -> Any:
    """Return a cell of a table that no spreadsheet runs as a formula; what is no text is returned as it is.

    Examples
    --------
    >>> harmless_cell("=1+1"), harmless_cell(-1.0)
    ("'=1+1", -1.0)
    """
    if not isinstance(cell, str):
        return cell
    # The quote makes it text again. A tab or line end before the sign is escaped.
    text = printable_line(cell)
    return f"'{text}" if text.startswith(_FORMULA_STARTS) else text


def _escaped(char: str) -> str:
    if "\udc80" <= char <= "\udcff":  # how Python holds a byte that is no text
        return f"\\x{ord(char) - 0xDC00:02x}"
    return char.encode("unicode_escape").decode()
