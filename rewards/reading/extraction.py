"""Where the answer stands in a response: after the thinking, boxed, or stated in words.

Every search here takes time linear in the length of the text, whatever the text.
"""

from __future__ import annotations

import re

THINK_OPEN = "◁think▷"
THINK_CLOSE = "◁/think▷"
BOX = "\\boxed"
MAX_STATED = 500
"""Longest stated answer, in characters."""

_STATEMENT = re.compile(
    r"\b(?:answers? (?:is|are|should be|must be|would be)|answers?\**:|answer\s*=)",
    re.IGNORECASE,
)
_FORMULA = re.compile(r"\$([^$]{1,200})\$|\\\(((?:[^\\]|\\(?!\))){1,200})\\\)")
_CONCLUSION = re.compile(
    r"(?:\b(?:is|are|was|be|equals|has|have|get|costs?)\b:?|=|≈) *([^=≈]{1,80})$"
)
_SENTENCE_END = re.compile(r"[.!?](?:\s|$)|\n")


def after_thinking(response: str) -> str | None:
    """The text after the last closed thinking part; None where thinking was never closed.

    A response without either mark is taken whole.
    """
    _, mark, summary = response.rpartition(THINK_CLOSE)
    if mark:
        return summary
    return None if THINK_OPEN in response else response


def boxes(text: str) -> list[str]:
    r"""The contents of every complete outermost `\boxed{...}`, in order; braces may nest."""
    found = []
    start = text.find(BOX)
    while start >= 0:
        position = start + len(BOX)
        while position < len(text) and text[position] == " ":
            position += 1
        end = _closing_brace(text, position)
        if end is not None:
            found.append(text[position + 1 : end].strip())
        elif position < len(text) and text[position].isalnum():  # \boxed 5
            found.append(text[position : position + MAX_STATED].split("$")[0].split()[0])
            end = position
        elif position < len(text) and text[position] == "{":
            break  # never closed: nothing after it is outside of it
        start = text.find(BOX, end or position)
    return found


_CONNECTOR = re.compile(r"\}[\s$)\\.]{0,6}(?:,|and|or|,\s?and|,\s?or)[\s$(\\]{0,6}\\boxed\s?\{")


def joined_boxes(text: str, found: list[str]) -> str:
    """The last box; with the one before it where both are named together ("... and ...")."""
    last = text.rfind(BOX)
    before = text.rfind(BOX, 0, last)
    if len(found) > 1 and before >= 0 and found[-2] != found[-1]:
        end = _closing_brace(text, text.find("{", before))
        if end is not None and _CONNECTOR.match(text, end):
            return f"{found[-2]}, {found[-1]}"
    return found[-1]


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


def stated(text: str) -> str | None:
    """The last answer given in words ("the answer is ..."), up to the end of its sentence."""
    ends = [match.end() for match in _STATEMENT.finditer(text)]
    if not ends:
        return None
    tail = text[ends[-1] : ends[-1] + MAX_STATED].lstrip(" :*\n")
    end = _SENTENCE_END.search(tail)
    return tail[: end.start()] if end else tail


def last_line(text: str) -> str:
    """The last line that is not blank."""
    stripped = text.rstrip()
    return stripped[stripped.rfind("\n") + 1 :].strip()


def concluded(line: str) -> str:
    """What a last line comes to: after `####`, else its last formula, else after "is" or `=`."""
    line = line[-MAX_STATED:].strip()
    if "####" in line:
        return line.rpartition("####")[2].strip()
    formulas = [match[1] or match[2] for match in _FORMULA.finditer(line)]
    if formulas:
        return formulas[-1].strip()
    match = _CONCLUSION.search(line)
    return match[1].strip() if match else line


def final_answer(response: str) -> str | None:
    """The answer of a response: its last box, else its last statement, else its last line.

    None where the thinking was never closed, or nothing follows it.
    """
    summary = after_thinking(response)
    if summary is None or not summary.strip():
        return None
    boxed = boxes(summary)
    if boxed:
        return joined_boxes(summary, boxed)
    answer = stated(summary)
    if answer is None:
        answer = concluded(last_line(summary))
    return answer.strip() or None
