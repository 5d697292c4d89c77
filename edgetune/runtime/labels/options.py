"""Labels of one letter, as the options of a question: where a text chooses one, and where it has the article "A"."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property

from edgetune.runtime.labels.negation import is_negated

_NOUNS = "option|choice|letter|candidate|response|assistant|model|alternative"
"""A capital letter behind one of these is no article."""

_SAYING = (
    rf"{_NOUNS}|answer(?:\s+(?:is|was|would be|should be|must be))?|it(?:'s| is)|go(?:ing)? with|must be|"
    r"say|choose|chose|select|selected|pick|picked|prefer|type|class|category|label|grade|group|therefore|thus|hence|so|"
    r"antwort ist|lösung ist|réponse est|respuesta es|resposta é|risposta è|antwoord is|ответ"
)
_SAID = rf"(?:\b(?i:{_SAYING})\b|:|答案(?:是|为|為|应为|應為)?|选择?项?|選択?肢?|答えは|正解は)"
"""What a letter stands behind where it is chosen, unless a noun follows that "A" would be the article of."""

_OPEN, _CLOSE = r"[\s*_\"'`(\[{$]{0,12}", r"[*_\"'`)\]}$]{0,12}"
"""What surrounds a letter. A bound keeps a loop of such characters from taking quadratic time."""

_ALONE = r"(?![A-Za-z0-9_+#'-])"
_WRONG = r"(?!\s+(?:is|was|would be)\s+(?:not|incorrect|wrong|false)\b)"
_BEHIND = (
    r"$|[.,;:!?()\]\n<。、\u3040-\u9fff\uac00-\ud7a3]|-\s|\b(?:because|since|as|is|was|would|seems|for|due|and|or)\b"
)
_NO_NOUN = rf"(?={_CLOSE}\s*(?:{_BEHIND}))(?!'\w){_WRONG}"


@dataclass(frozen=True)
class Options:
    """The labels of one letter among some labels."""

    letters: tuple[str, ...]

    def is_option_only(self, label: str) -> bool:
        """True for a letter that prose does not name by itself: of A, B, C ..., small, or an English word."""
        options = {"a", "b"} <= {letter.lower() for letter in self.letters}
        return label in self.letters and (options or not label.isupper() or label in "AIO")

    def beginning(self, text: str) -> str | None:
        """The option that a text begins with: "B", "(B) a dog", "B, because ..."."""
        found = self._first.match(text)
        return None if found is None else self._chosen(text, found)

    def named(self, text: str) -> set[str | None]:
        """The options that a text chooses, by the clearest of the forms that it has.

        None is among them for one that the text denies, or that "and" or "or" joins to another.
        """
        for patterns in ((self._behind_noun, self._said), (self._line,), (self._wrapped,)):
            named = {
                None if is_negated(text, found.start(), found.end(), after=False) else self._chosen(text, found)
                for pattern in patterns
                for found in pattern.finditer(text)
            }
            if named:
                return named
        return set()

    def _chosen(self, text: str, found: re.Match[str]) -> str | None:
        """The option of a match; None where it is one of several: "A and B", "A/B", "A, B"."""
        letter = found["letter"]
        another = self._more.match(text, found.end("letter"))
        if another is not None and another["letter"] != letter:
            return None
        return letter if letter in self.letters else next(one for one in self.letters if one.lower() == letter.lower())

    @cached_property
    def _exact(self) -> str:
        return _one_of(self.letters)

    @cached_property
    def _any_case(self) -> str:
        """The letters in both cases, where no two labels differ in it alone."""
        if len({letter.lower() for letter in self.letters}) < len(self.letters):
            return self._exact
        return _one_of([case for letter in self.letters for case in {letter, letter.lower(), letter.upper()}])

    @cached_property
    def _first(self) -> re.Pattern[str]:
        ending = rf"{self._any_case}(?={_CLOSE}[.\s]*$)"
        return re.compile(rf"{_OPEN}(?P<letter>{self._exact}{_NO_NOUN}|{ending})")

    @cached_property
    def _behind_noun(self) -> re.Pattern[str]:
        capitals = _one_of([letter for letter in self.letters if letter.isupper()] or ["\0"])
        return re.compile(rf"\b(?i:{_NOUNS})\b[\s:]{{0,12}}{_OPEN}(?P<letter>{capitals}){_ALONE}{_WRONG}")

    @cached_property
    def _said(self) -> re.Pattern[str]:
        return re.compile(rf"{_SAID}[\s:=>,-]{{0,12}}{_OPEN}(?P<letter>{self._exact}){_ALONE}{_NO_NOUN}", re.MULTILINE)

    @cached_property
    def _line(self) -> re.Pattern[str]:
        """A letter at the beginning of a line, with what parts an option from its text."""
        marked = r"[*_\"'`]*(?:[)\].:,](?=[\s*_]|$)|\s+-+\s|\s+\(|[*_\"'`)\]]*\s*$)"
        spoken = r"\s+(?:is|was)\s+(?!not\b|incorrect|wrong|false)|\s+(?:because|since)\b"
        return re.compile(
            rf"^[^\S\n]{{0,12}}[\s*_>\"'`(\[-]{{0,12}}(?P<letter>{self._any_case})(?:{marked}|{spoken})", re.MULTILINE
        )

    @cached_property
    def _wrapped(self) -> re.Pattern[str]:
        return re.compile(rf"(?<![\w'])[>(\[{{\"'*`$]{{1,12}}(?P<letter>{self._exact})[<)\]}}\"'*`$]+(?!\w)")

    @cached_property
    def _more(self) -> re.Pattern[str]:
        return re.compile(rf"{_CLOSE}\s*(?:,|/|&|\+|\band\b|\bor\b)\s*{_OPEN}(?P<letter>{self._exact})(?![\w'])")


def _one_of(letters: Sequence[str]) -> str:
    return f"[{re.escape(''.join(letters))}]"
