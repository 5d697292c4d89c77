"""Which texts a picture can write: matplotlib draws a box, and warns, where its font has no glyph."""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Iterable
from dataclasses import dataclass
from functools import cache

_MOST_FONTS_OPENED = 200
_NAMED = frozenset({"So", "Sm", "Sk", "Sc", "Po", "Pd"})
"""Unicode's categories of symbols and punctuation, whose names say what they are. A letter's name is no word."""

_PREFIX = re.compile("^(EMOJI MODIFIER FITZPATRICK|REGIONAL INDICATOR SYMBOL LETTER) ")
"""Of names that say more at their end: tones of skin, and the letters of flags."""

_INVISIBLE = frozenset({"Cf", "Mn", "Me"})
"""Those of what only changes the character before it: joiners, variation selectors."""


@dataclass(frozen=True)
class Fonts:
    """The names of the fonts that some texts take, matplotlib's own first, and the characters that none of them has."""

    names: tuple[str, ...]
    lacking: frozenset[str]

    def label(self, text: str, number: int) -> str:
        """A label as these fonts can write it: as it is; a symbol that they lack by its name in Unicode, `[thumbs up
        sign]`; a label that holds other characters that they lack by its number among the labels, `#2`.
        """
        if self.lacking.isdisjoint(text):
            return text
        parts = []
        for character in text:
            name, kind = unicodedata.name(character, ""), unicodedata.category(character)
            if character not in self.lacking:
                parts.append(character)
            elif name and kind in _NAMED:
                parts.append(f"[{_PREFIX.sub('', name).lower()}]")
            elif kind not in _INVISIBLE:
                return f"#{number}"
        return "".join(parts) or f"#{number}"

    def text(self, text: str) -> str:
        """Any other text, with `?` in the place of what these fonts lack."""
        return "".join("?" if character in self.lacking else character for character in text)


def find_fonts(texts: Iterable[str]) -> Fonts:
    """Fonts for the texts: matplotlib's own, and where it lacks a character, others that are installed."""
    from matplotlib import rcParams
    from matplotlib.font_manager import FontProperties, findfont

    default = str(rcParams["font.family"][0])
    needed = frozenset(character for text in texts for character in text)
    needed -= _glyphs(findfont(FontProperties(family=[default])))
    # No font draws a control character, or half of a surrogate pair.
    undrawn = frozenset(character for character in needed if unicodedata.category(character) in ("Cc", "Cs"))
    others, lacking = _other_fonts(needed - undrawn)
    return Fonts((default, *others), lacking | undrawn)


@cache
def _other_fonts(needed: frozenset[str]) -> tuple[tuple[str, ...], frozenset[str]]:
    """Installed fonts that have the characters, as few as are found in turn; and the characters that none has.

    Emoji fonts are left out: their glyphs are coloured pictures, which matplotlib cannot draw. The last resort is a
    font of boxes.
    """
    from matplotlib.font_manager import fontManager

    if not needed:
        return (), needed
    fonts: list[str] = []
    plain = [font for font in fontManager.ttflist if font.style == "normal" and font.weight in (400, "normal")]
    unfit = ("emoji", "last resort", "dejavu")
    files = {font.fname: font.name for font in plain if not any(word in font.name.lower() for word in unfit)}
    for file, name in sorted(files.items())[:_MOST_FONTS_OPENED]:
        if not needed:
            break
        found = needed & _glyphs(file)
        if found and name not in fonts:
            fonts.append(name)
            needed -= found
    return tuple(fonts), needed


@cache
def _glyphs(file: str) -> frozenset[str]:
    """The characters that a font file has glyphs for; none of a file that cannot be drawn from."""
    from matplotlib.ft2font import FT2Font

    try:
        font = FT2Font(file)
    except (OSError, RuntimeError):
        return frozenset()
    return frozenset(map(chr, font.get_charmap())) if font.scalable else frozenset()
