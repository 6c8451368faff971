"""Words that an answer must not lose: they doubt it, deny it, or change its value.

Other words may be dropped from an answer (`12 red apples`, `exactly 5`). Every search is linear.
"""

from __future__ import annotations

import re

_NEGATIONS = (
    "not", "no", "never", "neither", "nor", "none", "nothing", "cannot", "isn", "aren", "wasn",
    "won", "doesn", "don", "didn", "wouldn", "couldn", "shouldn", "except", "excluding", "excluded",
    "exclude", "excludes", "excepting", "wrong", "incorrect", "incorrectly", "false", "untrue",
    "mistaken", "invalid", "impossible", "unlike", "unequal", "anything", "anyone", "any", "reject",
    "rejected", "ignore", "opposite", "negation", "complement", "hardly", "nope", "nah", "isnt",
    "aint", "wasnt", "wrongly", "unlikely", "disproved", "disproven", "refuted",
)  # fmt: skip
_HEDGES = (
    "or", "either", "perhaps", "maybe", "possibly", "might", "could", "may", "alternatively",
    "otherwise", "else", "unless", "versus", "vs", "depending", "depends", "whichever",
)  # fmt: skip
_CHANGES = (
    "plus", "minus", "squared", "cubed", "root", "than", "half", "halves", "third", "thirds",
    "quarter", "quarters", "double", "doubled", "twice", "thrice", "triple", "tripled", "dozen",
    "dozens", "hundred", "hundreds", "thousand", "thousands", "million", "millions", "billion",
    "billions", "trillion", "trillions", "factorial", "between", "and", "but", "followed", "below",
    "divided", "multiplied", "added", "subtracted", "increased", "decreased", "negative", "inverse",
    "reciprocal", "modulo", "mod", "power", "gross", "googol", "percent", "base", "least", "most",
    "almost", "nearly", "minimum", "maximum", "zero", "one", "two", "three", "four", "five", "six",
    "seven", "eight", "nine", "ten", "eleven", "twelve", "thirteen", "fourteen", "fifteen",
    "sixteen", "seventeen", "eighteen", "nineteen", "twenty", "thirty", "forty", "fifty", "sixty",
    "seventy", "eighty", "ninety", "lakh", "crore", "mil", "tens", "tenth", "tenths", "hundredth",
    "hundredths", "thousandth", "thousandths", "fourths", "fifths", "sixths", "sevenths", "eighths",
    "ninths", "recurring", "repeating", "inverted", "reversed", "itself", "score", "assuming",
    "provided", "etc", "among", "others", "alongside", "besides", "also",
)  # fmt: skip
_SHORT = frozenset(
    ("a", "of", "in", "at", "by", "on", "an", "is", "it", "we", "he", "up", "as", "to", "so", "do")
)
"""Words of one or two letters that are no names of quantities."""
_KEPT = frozenset(_NEGATIONS) | frozenset(_HEDGES) | frozenset(_CHANGES)

_ROMAN = re.compile(r"[IVXLCDM]+")

_APART = r"(?<![A-Za-z\\]){}(?![A-Za-z])"
_NEGATED = re.compile(
    _APART.format(f"(?:{'|'.join(_NEGATIONS)})")
    + r"|\b(?:all|any|every|everything|everyone|nothing)(?: \w+)? but\b"
    r"|\b(?:ruled?|ruling|rules|crossed) out\b"
    r"|\b(?:eliminat|discard|exclud|dismiss)\w*|n't\b"
    r"|\\(?:neg|lnot|not|[bx]?cancel|sout)(?![A-Za-z])|不|非|没有|沒有|错|錯|無|无|除了|¬",
    re.IGNORECASE,
)
_HEDGED = re.compile(
    _APART.format(f"(?:{'|'.join(_HEDGES)})")
    + r"|\?|？|或|也许|也許|可能|大概|要么|要麼|\\(?:lor|vee|wedge)(?![A-Za-z])|[∨⊻]",
    re.IGNORECASE,
)

_CHANGES_NEXT = re.compile(
    r"\b(?:than|twice|thrice|half|double|triple|quarter|third|plus|minus|times|negative|least|most"
    r"|almost|nearly|below|above|under|over|between|without|near)\b",
    re.IGNORECASE,
)


def is_kept(word: str) -> bool:
    """Whether a word after a value may not be dropped; names of variables may not either."""
    folded = word.casefold()
    is_short = len(folded) < 3 and folded not in _SHORT
    return folded in _KEPT or is_short or _ROMAN.fullmatch(word) is not None


def is_negated(text: str) -> bool:
    """Whether a text denies something."""
    return _NEGATED.search(text) is not None


def is_hedged(text: str) -> bool:
    """Whether a text leaves something open."""
    return _HEDGED.search(text) is not None


def changes_next(words: str) -> bool:
    """Whether words before a value change it, deny it or leave it open: `fewer than`, `twice`."""
    return _CHANGES_NEXT.search(words) is not None or is_negated(words) or is_hedged(words)


# Around a box

# Words and marks that may stand between a denial and the box it denies.
_FILLER = (
    r"(?:[\s\"'`*_:$(\[}]|\b(?:the|an?|be|is|are|to|equal|answers?|options?|choices?|values?|it|that"
    r"|say|with|as|of|there|they|we|get|has|have|really|necessarily|simply|exactly|include|includes|being|would|final|correct"
    r"|right|like)\b){0,12}$"
)
_DENIED_BEFORE = re.compile(
    r"(?:\b(?:not|never|neither|nor|cannot|except|excluding|excludes?|unlike|unlikely|without|wrong"
    r"|mistake|false|incorrect|reject|ignore|rules? out|anything but|than|instead of|half of|twice"
    r"|different from|opposite of|unequal)\b|n't\b|不是|不等于|并非|除了|\\(?:neq?|neg|lnot)|[≠¬])"
    + _FILLER
    + r"|(?<![\w$-])[-−]\Z|\b(?:wrong|false|untrue|n't so|not so):[^:.]{1,60}\Z",
    re.IGNORECASE,
)
_HEDGED_BEFORE = re.compile(
    r"(?:\b(?:or|either|perhaps|maybe|possibly|probably|might be|could be|may be|alternatively"
    r"|could also be|might also be|unless)\b|或者?|也许是?|可能是?)" + _FILLER,
    re.IGNORECASE,
)
# Right after a box: another value, a denial, or a mark or word that makes it another value.
_AFTER = re.compile(
    r"[\s$)*.,\\\]]{0,8}(?:[(\[] ?)?"
    r"(?:(?:or|versus|vs|unless|perhaps|maybe|possibly|alternatively|或|也许|可能)(?![A-Za-z])"
    r"|(?:\w+ ){0,2}(?:is|are|was|would be|seems) (?:\w+ly )?(?:not\b|wrong\b|incorrect\b|false\b"
    r"|ruled out|impossible\b|excluded\b|rejected\b|mistaken\b|a trap\b|unlikely\b)"
    r"|(?:isn't|is not|cannot|can't|doesn't|does not (?:work|fit)|fails|would be absurd"
    r"|leads? to a contradiction)\b"
    r"|[?？]|是?(?:不对|错的|错误的|不正确))"
    r"|\$?\s{0,3}(?:\^|[-+*/]\s?[\d$]|\\(?:times|cdot|pm|div)\b"
    r"|(?:dozen|hundred|thousand|million|billion|trillion|plus|minus|squared|cubed)s?\b)"
    r"|\s{0,3}\$?\s{0,3}(?:[,;/|&、]|and\b)\s{0,3}\$?\s{0,3}\(?-?"
    r"(?:\d|\\frac|\\sqrt|[A-Z]\b(?! [a-z]))",
    re.IGNORECASE,
)
# Anywhere after an answer: it is taken back, or another is offered.
_RETRACTED = re.compile(
    r"\b(?:no,? (?:wait|sorry|actually|that|this|it)|wait|scratch that|just kidding"
    r"|on second thought)\b"
    r"|(?:^|[.!?;,:(—\n]|\b(?:but|and)\b)\s*(?:this|that|it|which|the (?:above|previous)"
    r"(?: answer)?|the answer|my answer)"
    r" (?:is|was) (?:clearly |surely |definitely |also )?(?:wrong|incorrect|false"
    r"|not (?:the )?(?:final |correct |right )?(?:answer|correct|right|true))\b"
    r"|\b(?:it|the answer|this|that) (?:could|might|may) (?:also |as well |equally )?be\b"
    r"|^\W{0,3}or\b|\bor (?:maybe|perhaps|possibly|it (?:could|might|may)|the answer)\b"
    r"|\balternatively\b"
    r"|\b(?:could|might|may) also be\b|\banother (?:possible )?answer\b"
    r"|\b(?:never right|do not believe|don't believe|is a lie|opposite is true)\b"
    r"|[.!]\s*(?:a )?contradiction\b"
    r"|也可能|或者|这是错的|不对",
    re.IGNORECASE,
)
NEARBY = 100
"""Characters on either side of an answer that are looked at."""


def doubt(before: str, after: str, later: str) -> str | None:
    """Why the words around an answer take it back; None where they do not.

    before, after: the rest of its sentence on either side; later: what follows the sentence.
    """
    if _DENIED_BEFORE.search(before[-NEARBY:]):
        return "the answer is denied"
    if _HEDGED_BEFORE.search(before[-NEARBY:]) or _AFTER.match(after):
        return "the answer is denied or one of several"
    if _RETRACTED.search(after[:NEARBY] + later[: 2 * NEARBY]):
        return "the answer is taken back"
    return None
