"""Near-duplicate problems, by their texts, numbers, answers and pictures.

Two problems are duplicates where texts (with their choices) and pictures are the same, however they
are written down; or where their texts are similar, all numbers in them agree, their answers agree,
and their pictures look alike, one by one. So problems of one pattern that differ by
a number, or by what a picture shows, stay.
"""

from __future__ import annotations

import math
import re
import unicodedata
from collections import Counter, defaultdict
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from fractions import Fraction

import numpy as np
from PIL import Image

from thinking_rl.data.images import MARK
from thinking_rl.model.image_store import hash_of
from thinking_rl.model.images import open_image, read_image
from thinking_rl.types import ImageSource, Problem

TEXT_THRESHOLD = 0.5
"""Least Jaccard similarity of the content words of two similar texts."""
PICTURE_THRESHOLD = 16.0
"""Largest difference of two pictures that look alike, in any cell, of 255."""
CELLS = 16
"""A picture is compared by the mean colours of so many by so many cells."""
ASPECT_TOLERANCE = 0.06
"""Largest difference of the logarithms of two pictures' aspect ratios."""

_FROM_TWO = "two three four five six seven eight nine ten eleven twelve"
NUMBER_WORDS: dict[str, str] = {
    word: str(n) for n, word in enumerate(re.findall(r"\w+", _FROM_TWO), start=2)
}
"""`one` is more often a pronoun than a number."""
FUNCTION_WORDS = frozenset(
    re.findall(
        r"\w+",
        "a an the of is are was were be been has have had in on at to from by for with and or as "
        "that this these those there it its he she they his her their him them i you your we our "
        "who whose which what when where how many much do does did will would can could should if "
        "then than find determine compute calculate give tell state answer question work out show "
        "shown please value following into each one picture figure image diagram below above",
    )
)
"""Words that a rewording changes."""
_TOKEN = re.compile(r"[^\W\d_]+|\d+(?:\.\d+)?|[-+*/=<>^%|!°±√π]")
_THOUSANDS = re.compile(r"(?<=\d),(?=\d{3}(?!\d))")
_FRACTION = re.compile(r"\\[dtc]?frac\s*\{([^{}]*)\}\s*\{([^{}]*)\}")
_WRAPPED = re.compile(
    r"\\(?:text|textbf|textit|mathrm|mathbf|mathit|mathsf|operatorname|boxed|mbox)\s*\{([^{}]*)\}"
)
_DRESS = re.compile(
    r"\\(?:left|right|displaystyle|quad|qquad|big|Big|bigl|bigr|limits|circ(?![a-z])|[,;:! ])|\$"
)
_SYMBOLS = {
    r"\times": "*",
    r"\cdot": "*",
    r"\div": "/",
    r"\leq": "<=",
    r"\geq": ">=",
    r"\le": "<=",
    r"\ge": ">=",
    r"\neq": "!=",
    r"\pm": "±",
    r"\pi": "π",
    r"\sqrt": "√",
    "×": "*",
    "·": "*",
    "÷": "/",
    "−": "-",
    "–": "-",
    "≤": "<=",
    "≥": ">=",
    "≠": "!=",
}
_SYMBOL = re.compile(
    "|".join(
        re.escape(symbol) + (r"(?![a-zA-Z])" if symbol.startswith("\\") else "")
        for symbol in _SYMBOLS
    )
)


def text_tokens(text: str) -> tuple[str, ...]:
    """Words, numbers and signs of a text: without case, spacing, punctuation, picture marks and
    LaTeX's dress; number words from two to twelve as digits."""
    text = MARK.sub(" ", unicodedata.normalize("NFKC", text))
    text = _DRESS.sub(" ", text)
    for pattern, replacement in ((_WRAPPED, r" \1 "), (_FRACTION, r" \1/\2 ")):
        text = pattern.sub(replacement, text)
    text = _SYMBOL.sub(lambda match: f" {_SYMBOLS[match[0]]} ", text)
    text = _THOUSANDS.sub("", text).casefold()
    tokens: list[str] = _TOKEN.findall(text)
    return tuple(NUMBER_WORDS.get(token, token) for token in tokens)


def answer_key(text: str) -> str:
    """An answer without its dress; a number or a simple fraction by its value, without its unit
    where that has two letters or more."""
    tokens = text_tokens(text)
    if not any(token[0].isdigit() for token in tokens):
        return " ".join(tokens)
    while len(tokens) > 1 and tokens[-1].isalpha() and len(tokens[-1]) > 1:
        tokens = tokens[:-1]
    joined = "".join(tokens)
    try:
        return str(Fraction(joined))
    except (ValueError, ZeroDivisionError):
        return joined


def answer_of(problem: Problem) -> str:
    """The key of a problem's answer, or of the option that it names."""
    letters = [chr(ord("A") + place) for place in range(len(problem.choices))]
    named = dict(zip(letters, problem.choices, strict=True))
    answer = problem.answer.strip().strip("()").strip()
    return answer_key(named.get(answer.upper(), answer))


@dataclass(frozen=True)
class Picture:
    """What pictures are compared by."""

    content: str
    """Hash of the encoded bytes."""
    aspect: float
    """Logarithm of width over height."""
    cells: np.ndarray
    """[16, 16, 3] mean colours, 0 to 255."""

    def looks_like(self, other: Picture) -> bool:
        """Whether they are the same but for encoding and size."""
        if self.content == other.content:
            return True
        if abs(self.aspect - other.aspect) > ASPECT_TOLERANCE:
            return False
        return difference(self, other) <= PICTURE_THRESHOLD


def difference(one: Picture, other: Picture) -> float:
    """Of two pictures, in the cell and colour where it is largest, of 255."""
    return float(np.abs(one.cells - other.cells).max())


def picture_of(source: ImageSource) -> Picture:
    """A picture as it is compared.

    Raises:
        ValueError: it cannot be read.
    """
    data = read_image(source)
    image = open_image(data, name="" if isinstance(source, bytes) else str(source))
    small = image.resize((CELLS, CELLS), Image.Resampling.BILINEAR)
    aspect = math.log(image.width / image.height)
    return Picture(hash_of(data), aspect, np.asarray(small, dtype=np.float32))


@dataclass(frozen=True)
class Entry:
    """A problem as it is compared."""

    id: str
    """Of the problem."""
    tokens: tuple[str, ...]
    """Of the question."""
    choices: tuple[str, ...]
    """Keys of the options, sorted."""
    answer: str
    """Its key, or that of the option that it names."""
    pictures: tuple[Picture, ...]
    """In their order."""

    @property
    def numbers(self) -> tuple[str, ...]:
        """All numbers of the question, sorted."""
        return tuple(sorted(token for token in self.tokens if token[0].isdigit()))

    @property
    def content(self) -> frozenset[str]:
        """The words that a rewording keeps; all, where there are none."""
        return frozenset(self.tokens) - FUNCTION_WORDS or frozenset(self.tokens)

    @property
    def exact(self) -> tuple:
        """What is the same in two problems that are the same."""
        return (self.tokens, self.choices, tuple(one.content for one in self.pictures))

    def looks_like(self, other: Entry) -> bool:
        """Whether all pictures look alike."""
        pairs = zip(self.pictures, other.pictures, strict=False)
        return len(self.pictures) == len(other.pictures) and all(a.looks_like(b) for a, b in pairs)


def entry_of(problem: Problem, picture: Callable[[ImageSource], Picture] = picture_of) -> Entry:
    """A problem as it is compared.

    Raises:
        ValueError: a picture cannot be read.
    """
    return Entry(
        id=problem.id,
        tokens=text_tokens(problem.question),
        choices=tuple(sorted(answer_key(choice) for choice in problem.choices)),
        answer=answer_of(problem),
        pictures=tuple(picture(source) for source in problem.images),
    )


@dataclass(frozen=True)
class Duplicate:
    """Why a problem is left out."""

    of: str
    """Id of the problem that stays, or of the evaluation problem."""
    kind: str
    """`same` text and pictures, or `similar`."""
    answers_agree: bool
    """False where the same problem has two answers: one of them is wrong."""


def find_duplicates(
    problems: Sequence[Entry], others: Sequence[Entry] = ()
) -> dict[int, Duplicate]:
    """Which of the problems repeat one of `others` (the evaluation sets), or an earlier problem
    that stays; by their places. A problem that repeats one that is left out stays."""
    entries = [*others, *problems]
    first = len(others)
    found: dict[int, Duplicate] = {}
    seen: dict[tuple, int] = {}
    for place, entry in enumerate(entries):
        same = seen.setdefault(entry.exact, place)
        if same != place and place >= first:
            agree = entry.answer == entries[same].answer
            found[place] = Duplicate(entries[same].id, "same", agree)
    left = sorted(set(seen.values()))
    similar = _similar(entries, left)
    for place in left:
        earlier = sorted(other for other in similar.get(place, ()) if other not in found)
        if place >= first and earlier:
            found[place] = Duplicate(entries[earlier[0]].id, "similar", True)
    return {place - first: duplicate for place, duplicate in sorted(found.items())}


def _similar(entries: Sequence[Entry], places: Sequence[int]) -> Mapping[int, set[int]]:
    """Place -> the earlier places that are similar to it."""
    blocks: dict[tuple, list[int]] = defaultdict(list)
    for place in places:
        entry = entries[place]
        blocks[entry.numbers, entry.answer, len(entry.pictures)].append(place)
    similar: dict[int, set[int]] = defaultdict(set)
    for block in blocks.values():
        for one, other in _similar_texts(entries, block):
            if entries[one].looks_like(entries[other]):
                similar[max(one, other)].add(min(one, other))
    return similar


def _similar_texts(entries: Sequence[Entry], places: Sequence[int]) -> Iterator[tuple[int, int]]:
    """Pairs whose texts are similar and, where they have pictures, whose first ones are about as
    bright: pictures that look alike are."""
    texts: dict[frozenset[str], list[int]] = defaultdict(list)
    for place in places:
        texts[entries[place].content].append(place)
    contents = list(texts)
    pairs = [*((at, at) for at in range(len(contents))), *similar_sets(contents, TEXT_THRESHOLD)]
    for one, other in pairs:
        members = texts[contents[one]] + (texts[contents[other]] if one != other else [])
        members = sorted(members, key=lambda place: _brightness(entries[place]))
        for at, place in enumerate(members):
            for later in members[at + 1 :]:
                gap = _brightness(entries[later]) - _brightness(entries[place])
                if gap > PICTURE_THRESHOLD:
                    break
                yield place, later


def _brightness(entry: Entry) -> float:
    return float(entry.pictures[0].cells.mean()) if entry.pictures else 0.0


def similar_sets(sets: Sequence[frozenset[str]], threshold: float) -> Iterator[tuple[int, int]]:
    """Every pair (earlier, later) whose Jaccard similarity is at least `threshold` (above 0).

    Exact: two such sets share one of the rarest members of each, so only those are indexed (prefix
    filter; Chaudhuri, Ganti and Kaushik 2006).
    """
    counts = Counter(member for one in sets for member in one)
    index: dict[str, list[int]] = defaultdict(list)
    for place, one in enumerate(sets):
        rarest = sorted(one, key=lambda member: (counts[member], member))
        prefix = rarest[: len(one) - math.ceil(threshold * len(one) - 1e-9) + 1]
        for other in sorted({other for member in prefix for other in index[member]}):
            if jaccard(one, sets[other]) >= threshold:
                yield other, place
        for member in prefix:
            index[member].append(place)


def jaccard(one: frozenset[str], other: frozenset[str]) -> float:
    """Shared members as a share of all; 1 of two empty sets."""
    union = len(one | other)
    return len(one & other) / union if union else 1.0
