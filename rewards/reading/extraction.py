r"""Where the answer stands in a response: after the thinking, boxed, or stated in words.

The last word counts: a statement of the final answer after the last box replaces it, and a box
replaces what was said before it. Boxes that stand together are one answer of several values; an
earlier one is left behind only by words that say so ("no", "therefore", "finally"...).

Every search here takes time linear in the length of the text, whatever the text.
"""

from __future__ import annotations

import re
from dataclasses import dataclass

from rewards.reading.words import changes_next, doubt, is_hedged, is_negated

THINK_OPEN = "◁think▷"
THINK_CLOSE = "◁/think▷"
BOX = "\\boxed"
MAX_STATED = 500
"""Longest stated answer, in characters."""
SHORT = 40
"""Characters up to which a sentence with a question mark asks whether that is the answer."""
MAX_BOXES = 50
"""Of a response; it is the last ones that are looked at."""


@dataclass(frozen=True)
class Reading:
    """The final answer as it stands in a response."""

    text: str
    """The answer, without what stands around it."""
    kind: str
    """box, statement, or line: where no answer is stated, the last line is read."""
    doubt: str | None = None
    """Why the words around it take it back."""


def after_thinking(response: str) -> str | None:
    """The text after the last closed thinking part; None where thinking was never closed.

    A response without either mark is taken whole.
    """
    _, mark, summary = response.rpartition(THINK_CLOSE)
    if mark:
        return summary
    return None if THINK_OPEN in response else response


def final_answer(response: str) -> str | None:
    """The text of `read_answer`; None where there is none."""
    reading = read_answer(response)
    return None if reading is None else reading.text


def read_answer(response: str) -> Reading | None:
    """The answer of a response: its last box or statement, else its last line.

    None where the thinking was never closed, or nothing follows it.
    """
    summary = after_thinking(response)
    if summary is None or not summary.strip():
        return None
    spans = box_spans(summary)
    if spans:
        later = _last_statement(summary, spans[-1][1])
        if later is not None and _is_value(later.text):
            return later
        return _boxed(summary, spans)
    reading = _last_statement(summary, 0)
    if reading is None:
        line = last_line(summary)
        text = concluded(line)
        if not text:
            return None
        before, _, later = line.rpartition(text)
        asks = "?" in text + later and not _COURTESY.match(later)
        reason = "a question" if asks else doubt(before, "", later)
        reading = Reading(text, "line", reason)
    return reading


# Boxes


def boxes(text: str) -> list[str]:
    r"""The contents of every complete outermost `\boxed{...}`, in order; braces may nest."""
    return [content for _, _, content in box_spans(text)]


def box_spans(text: str) -> list[tuple[int, int, str]]:
    """Start, end and content of every complete outermost box, in order."""
    found = []
    start = text.find(BOX)
    while start >= 0:
        position = start + len(BOX)
        while position < len(text) and text[position] == " ":
            position += 1
        end = _closing_brace(text, position)
        if end is not None:
            found.append((start, end + 1, text[position + 1 : end].strip()))
        elif position < len(text) and text[position].isalnum():  # \boxed 5
            content = text[position : position + MAX_STATED].split("$")[0].split()[0]
            end = position
            found.append((start, position + len(content), content))
        elif position < len(text) and text[position] == "{":
            break  # never closed: nothing after it is outside of it
        start = text.find(BOX, end or position)
    return found


def _closing_brace(text: str, start: int) -> int | None:
    """Where the brace that opens at `start` closes; None if none opens there or it never does."""
    if text[start : start + 1] != "{":
        return None
    depth, position = 0, start
    while position < len(text):
        character = text[position]
        if character == "\\":
            position += 1  # \{ and \} do not count
        elif character == "{":
            depth += 1
        elif character == "}":
            depth -= 1
            if depth == 0:
                return position
        position += 1
    return None


# Words between two boxes by which the second replaces the first.
_LEAVES_BEHIND = re.compile(
    r"\b(?:no|wait|wrong|mistake|correction|corrected|actually|instead|rather|therefore|thus|hence"
    r"|so|then|finally|final|conclude|conclusion|total|altogether|substituting|plugging|answer)\b"
    r"|因此|所以|故|最终|綜上|综上|答案|####",
    re.IGNORECASE,
)


def _boxed(summary: str, spans: list[tuple[int, int, str]]) -> Reading:
    """The last box, with those before it that it does not leave behind."""
    spans = spans[-MAX_BOXES:]
    first = len(spans) - 1
    while first > 0:
        gap = summary[spans[first - 1][1] : spans[first][0]]
        if _LEAVES_BEHIND.search(gap) and spans[first - 1][2] != spans[first][2]:
            break
        first -= 1
    contents = list(dict.fromkeys(content for _, _, content in spans[first:]))
    before = summary[max(0, spans[first][0] - MAX_STATED) : spans[first][0]]
    after = summary[spans[-1][1] :][:MAX_STATED]
    end = _SENTENCE_END.search(after)
    cut = end.start() + (end[0] in "?？") if end else len(after)
    reason = doubt(_last_sentence(before), after[:cut], after[cut:])
    return Reading(", ".join(contents), "box", reason)


def every_box(summary: str) -> str:
    """All different boxes of a summary as one answer of several values."""
    return ", ".join(dict.fromkeys(boxes(summary)[-MAX_BOXES:]))


# Statements

_BE = r"(?: therefore| thus| then| hence)?,? (?:is|are|should be|must be|would be|will be|equals)"
# What announces a final answer: "the answer is", "Answer:", a heading, an option, Chinese, ####.
_STATEMENT = re.compile(
    r"\banswers?(?: to (?:the|this) (?:question|problem))?[*_]{0,3}" + _BE + r"(?![\w'’])"
    r"(?: (?:therefore|thus|simply|just|then|definitely|clearly|certainly|indeed|actually))?"
    r"|\banswers?[*_]{0,3}[ \t]*[:=：]|\banswers?[*_]{0,3} [-–—] |<answer>"
    r"|^[*_#> ]{0,8}(?:the )?(?:(?:final|correct) )?(?:answer|result)[*_: ]{0,6}$"
    r"|\b(?:correct|right|best) (?:choice|option)" + _BE + r"\b"
    r"|\b(?:correct|right|best|final) (?:choice|option)[*_]{0,3}[ \t]*[:：]"
    r"|(?:正确)?(?:答案|選項|选项)[*_]{0,3}(?:应该|应当|應該)?(?:就?是|为|為|应?选|應?選|[:：])+"
    r"|(?<![\w挑])(?:故|应|應|因此|所以|则|則|综上)?(?:本题)?(?:应|應|该|該)?[选選](?:择|擇|项|項)?[:：]?"
    r"(?=[\s(（$\\*]{0,6}[A-Za-zＡ-Ｚ])|(?<![^\n。*])答[*]{0,2}[:：]"
    r"|^#### (?=\$?-?[\d.][^\n]{0,60}\s*\Z)",
    re.IGNORECASE | re.MULTILINE,
)
_SENTENCE_END = re.compile(
    r"(?<!\bsq)(?<!\bcu)(?<!\b[ap]\.m)(?<!\b[ap])\.(?=[\s*_\"')\\$]|$)|[!?？](?=\s|\*|$)|\n|[。；]|</answer>"
)
# Where a sentence goes on from its answer to something else.
_REASON = re.compile(
    r",?\s+(?:because|since|which(?! I doubt)(?! (?:is|was) (?:\w+ )?(?:wrong|false|incorrect"
    r"|not (?:true|right|correct|the))\b)|given that|as shown|as required|as desired)\b"
    r"|[，,]?\s*(?:因为|因為|理由|由于)"
    r"|,\s+(?:as(?! is)|so(?! \S{0,2}(?:\d|(?-i:[A-HJ-Z])\b))|where(?! I\b)|and we(?! also)"
    r"|and that|obtained|found)\s",
    re.IGNORECASE,
)
_BECAUSE = re.compile(r",?\s+(?:because|since)\b|[，,]?\s*(?:因为|因為)", re.IGNORECASE)
_IS = re.compile(r"\b(?:is|are|equals?)\b|[=是为為有得]")
_DISPLAY = re.compile(r"\$\$(.{1,400}?)\$\$|\\\[(.{1,400}?)\\\]", re.DOTALL)
_EMPHASIS = re.compile(r"(?<![\w*])(\*\*|__)(?=\S)([^*\n]{1,400}?)\1(?![\w*])")
_CLAUSE = re.compile(
    r"[,;:，；。.!?\n]|\b(?:so|thus|hence|therefore|then|because|since)\b", re.IGNORECASE
)


def _last_statement(text: str, start: int) -> Reading | None:
    """The last answer given in words ("the answer is ...") from `start` on."""
    matches = list(_STATEMENT.finditer(text, start))
    if not matches:
        return None
    last = matches[-1]
    answer, rest, asks = _sentence(text[last.end() : last.end() + MAX_STATED])
    if not answer:
        return None
    clause = _CLAUSE.split(text[max(0, last.start() - 200) : last.start()])[-1]
    reason = doubt("", "", rest)
    if asks or is_negated(clause) or is_hedged(clause):
        reason = "the answer is not asserted"
    return Reading(answer, "statement", reason)


def _sentence(tail: str) -> tuple[str, str, bool]:
    """A stated answer, what follows it, and whether it is a question."""
    tail = _EMPHASIS.sub(r"\2", tail.lstrip()).lstrip(" :：*_\n\t#>=")
    display = _DISPLAY.match(tail)
    if display:
        return (display[1] or display[2]).strip(), tail[display.end() :], False
    end = _SENTENCE_END.search(tail)
    sentence, rest = (tail[: end.start()], tail[end.end() :]) if end else (tail, "")
    is_value = _is_value(sentence)
    asks = end is not None and end[0] in "?？" and (len(sentence) < SHORT or not is_value)
    sentence = without_reason(sentence).strip(" *_")
    if not is_value and not rest.strip(" *_\n") and _IS.search(sentence):
        sentence = concluded(sentence)  # Answer: the total is 34
    return sentence, rest, asks


def without_reason(sentence: str) -> str:
    """A sentence up to where it goes on to give a reason."""
    reason = _REASON.search(sentence)
    return sentence[: reason.start()] if reason and reason.start() else sentence


_VALUE = re.compile(
    r"[\s$*({\[]{0,6}(?:[-+−]?[\d.]+|\\[A-Za-z(\[{]|[√π½¼]|[A-Za-z](?![A-Za-z])|[([]?[-\d])"
)


def _is_value(text: str) -> bool:
    """Whether a stated answer begins like a value, a formula or a letter."""
    return _VALUE.match(text) is not None


def _last_sentence(text: str) -> str:
    end = max(text.rfind(mark) for mark in (". ", "? ", "! ", "\n", "。"))
    return text[end + 1 :]


# The last line

_FORMULA = re.compile(r"\$([^$]{1,200})\$|\\\(((?:[^\\]|\\(?!\))){1,200})\\\)")
# Verbs and marks after which a last line has its value.
_CONCLUSION = re.compile(
    r"(?:\b(?:is|are|was|were|be|equals?|has|have|had|get|gets|costs?|obtain|obtains|find|choose|pick"
    r"|gives(?: us)?|yields|totals|exactly|to be)\b(?! to\b):?|[≈：]|\\approx|是|为|為|有|得"
    r"|\b(?:so|thus|hence|therefore)\b,?)\s*",
    re.IGNORECASE,
)
# Marks of a list, and words as opposed to commands and names of variables.
_BULLET = re.compile(r"^(?:[>#\-•]+ +|\d+[.)] +(?=\D))+")
_PROSE = re.compile(r"(?<![\\A-Za-z{])(?!(?:and|or)\b)[A-Za-z]{2,}(?![A-Za-z}])|[\u4e00-\u9fff]{2}")


_COURTESY = re.compile(
    r"\W*(?:I )?hope (?:this|that|it)\b|\W*(?:please )?let me know\b|\W*(?:do you have|if you have"
    r"|is there) (?:any|more|other|anything)\b|\W*```\W*$",
    re.IGNORECASE,
)


def last_line(text: str) -> str:
    """The last line that says more than "I hope this helps"; of a display its formula."""
    stripped = text.rstrip()
    for _ in range(2):
        courtesy = stripped[stripped.rfind("\n") + 1 :]
        if len(courtesy) < len(stripped) and _COURTESY.match(courtesy):
            stripped = stripped[: -len(courtesy)].rstrip()
    for closing, opening in (("$$", "$$"), ("\\]", "\\[")):
        if stripped.rstrip(".").endswith(closing):
            inside = stripped.rstrip(".")[: -len(closing)]
            start = inside.rfind(opening)
            beside = inside[:start].rpartition("\n")[2]
            if start >= 0 and len(inside) - start <= MAX_STATED and closing not in beside:
                return inside[start + len(opening) :].strip().replace("\n", " ")
    return stripped[stripped.rfind("\n") + 1 :].strip()


def concluded(line: str) -> str:
    """What a last line comes to: after `####`; the line itself, if it is no sentence; else what
    follows "is", "are", "=" and the like.
    """
    line = line[-MAX_STATED:].strip()
    if "####" in line:
        return line.rpartition("####")[2].strip()
    line = _EMPHASIS.sub(r"\2", _BULLET.sub("", line)).strip("*_ ")
    if not _PROSE.search(line):
        return line
    if is_negated(_CLAUSE.split(line.rstrip(" .!"))[-1]):
        return line
    because = _BECAUSE.search(line)
    sentence = line[: because.start()] if because else line
    tails = [match.end() for match in _CONCLUSION.finditer(sentence)]
    starts = [start for start in tails if _HAS_VALUE.search(sentence, start)] or tails
    tail = _from_only_number(sentence[starts[-1] if starts else 0 :].strip())
    if "=" in tail:
        tail = _chain(tail)
    if not any(mark.isalnum() for mark in tail):
        tail = sentence
    formulas = list(_FORMULA.finditer(tail))
    if len(formulas) == 1 and tail[:1].isalpha() and not changes_next(tail[: formulas[0].start()]):
        tail = tail[formulas[0].start() :]  # with the unit that may follow it
    end = _SENTENCE_END.search(tail)
    if end is None or _HAS_VALUE.search(tail, end.end()):
        return tail  # what follows has values too: none of them is the answer
    return tail[: end.start()] if _HAS_VALUE.search(tail, 0, end.start()) else tail


_HAS_VALUE = re.compile(r"\d|[$\\]")
_NUMBER = re.compile(r"[-−]?\d[\d:.,/]*")


_SIGN = re.compile(r"[^\w\s,;:'’()*-]")
"""A sign or the end of a sentence: then the number is not what the words before it lead to."""


def _from_only_number(sentence: str) -> str:
    """`It takes 12 days to get there` from its only number on."""
    numbers = list(_NUMBER.finditer(sentence))
    if len(numbers) != 1 or "\\" in sentence or "$" in sentence:
        return sentence
    start = numbers[0].start()
    before = sentence[:start]
    is_part = before.rstrip().endswith(" and")  # an hour and 45 minutes
    return sentence if is_part or changes_next(before) or _SIGN.search(before) else sentence[start:]


def _chain(tail: str) -> str:
    """The equation that a sentence ends in, without the words before it: `so 3 + 4 = 7`."""
    first, _, rest = tail.partition("=")
    words = list(_PROSE.finditer(first))
    label = first[words[-1].end() :].strip(" ,:") if words else first.strip()
    sides = [label, *rest.split("=")] if label else rest.split("=")
    while len(sides) > 2 and _PROSE.search(sides[-2]):
        sides = [sides[-1]]
    if len(sides) > 1 and any(_PROSE.search(side) for side in sides[:-1]):
        return sides[-1].strip()
    return " = ".join(side.strip() for side in sides)
