"""What a spreadsheet takes for a formula: said once, for the printing of a page and for the export of millions."""

from __future__ import annotations

FORMULA = "=+-@\uff1d\uff0b\uff0d\uff20"
"""A text cell runs whose first character, blanks aside, is one of these (or their full-width twins)."""

BREAKS = ("\t", "\r")
"""So does one that begins with one of these."""
