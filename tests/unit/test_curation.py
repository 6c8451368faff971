"""Curation's pure parts: what is hackable, repeated, balanced, and shown by a chain."""

from __future__ import annotations

import io
import json
import threading
from collections import Counter
from dataclasses import replace
from http.server import BaseHTTPRequestHandler, HTTPServer
from pathlib import Path

import pytest
from PIL import Image

from rewards.reading.extraction import THINK_CLOSE, THINK_OPEN
from thinking_rl.curation.asking import Answered, Item, Response, ask
from thinking_rl.curation.behaviours import BEHAVIOURS, behaviours, instruction, shares, thinking_of
from thinking_rl.curation.chains import best_chains
from thinking_rl.curation.difficulty import Guess, binomial_tail, hacked, pass_rate
from thinking_rl.curation.duplicates import (
    Entry,
    answer_key,
    answer_of,
    entry_of,
    find_duplicates,
    jaccard,
    similar_sets,
    text_tokens,
)
from thinking_rl.curation.endpoint import Endpoint, response_of
from thinking_rl.curation.selection import balanced, domain, question_type
from thinking_rl.curation.written import problem_row, write_parquet
from thinking_rl.data import example_stream, load_problems
from thinking_rl.data.procedural import generate
from thinking_rl.recipe.schema import Source
from thinking_rl.types import FinishReason, Problem, Score

AREA = Problem("a", "What is the area of a triangle with base 6 and height 4?", "12")


def encoded(image: Image.Image, kind: str = "PNG", **options) -> bytes:
    buffer = io.BytesIO()
    image.save(buffer, kind, **options)
    return buffer.getvalue()


@pytest.mark.parametrize(
    ("verdicts", "rate"),
    [([True, False], 0.5), ([True, None], 1.0), ([None], None), ([], None), ([False] * 10, 0.0)],
)
def test_pass_rates_are_of_graded_responses(verdicts: list, rate: float | None) -> None:
    assert pass_rate(verdicts) == rate


def test_the_tail_is_that_of_a_binomial() -> None:
    assert binomial_tail(0, 8, 0.3) == pytest.approx(1)
    assert binomial_tail(8, 8, 0.5) == pytest.approx(1 / 256)
    assert binomial_tail(1, 8, 0.1) == pytest.approx(1 - 0.9**8)


def test_hits_that_the_prior_explains_do_not_drop_a_problem() -> None:
    """Everybody guesses 4: that it is right at one problem says nothing; a rare answer does."""
    common = [Guess("4", False)] * 8
    lucky = [Guess("4", True)] * 8
    rare = [Guess("4", False)] * 7 + [Guess("137", True)]
    guesses = [common] * 20 + [lucky, rare]
    answers = ["9"] * 20 + ["4", "137"]
    found = hacked(guesses, answers, [0] * 22, ["sums"] * 22)
    assert found[20].chance > 0.9
    assert not found[20].is_easy(0.05)
    assert found[20].is_easy(1.0)  # Kimi k1.5's own rule: any hit
    assert found[21].chance < 0.01
    assert found[21].is_easy(0.05)
    assert not found[0].is_easy(1.0)


def test_the_prior_knows_options_domains_and_equal_forms() -> None:
    half = [Guess("1/2", False)] * 8
    right = [Guess("0.5", True)] * 2 + [Guess("3", False)] * 6
    guesses, answers = [half] * 10 + [right], ["7"] * 10 + ["1/2"]
    far = hacked(guesses, answers, [0] * 10 + [0], ["x"] * 11)[10]
    assert far.chance > 0.9, "0.5 and 1/2 are one answer"
    options = hacked([right], ["1/2"], [4], ["x"])[0]
    assert options.chance >= 1 / 4
    elsewhere = [[Guess("5", False)] * 8] * 10 + [[Guess("3", False)] * 8] * 10
    own = hacked(
        [*elsewhere, [Guess("3", True)] * 8],
        ["0"] * 20 + ["3"],
        [0] * 21,
        [*(["a"] * 10), *(["b"] * 10), "a"],
    )[20]
    assert own.chance < 0.05, "only the domain's own guesses count where there are enough"


@pytest.mark.parametrize(
    ("question", "answer", "choices", "kind"),
    [
        ("What is 2+3?", "5", (), "open"),
        ("Which?", "B", ("1", "2", "3"), "choice"),
        ("Is 7 prime?", "A", ("True", "False"), "true_false"),
        ("Is 7 prime?", "yes", (), "true_false"),
        ("Name the variable.", "T", (), "open"),
        ("Prove that 2 is even.", "-", (), "proof"),
        ("Let n be odd. Show that n^2 is odd.", "-", (), "proof"),
        ("The chart shows the sales. What do they show?", "3", (), "open"),
        ("Improve the bound by how much?", "3", (), "open"),
    ],
)
def test_question_types(question: str, answer: str, choices: tuple, kind: str) -> None:
    assert question_type(Problem("x", question, answer, choices=choices)) == kind


def test_no_domain_has_more_than_its_share() -> None:
    names = ["a"] * 90 + ["b"] * 6 + ["c"] * 4
    keys = [str(place) for place in range(100)]
    kept = balanced(names, 0.5, keys, seed=0)
    counts = Counter(names[place] for place in kept)
    assert counts == {"a": 10, "b": 6, "c": 4}
    assert kept == balanced(names, 0.5, keys, seed=0) != balanced(names, 0.5, keys, seed=1)
    assert balanced(names, 1.0, keys, 0) == list(range(100))
    with pytest.raises(ValueError, match=r"give 0\.333 or more"):
        balanced(names, 0.2, keys, 0)
    assert domain(Problem("x", "", "", source="s")) == "s"


@pytest.mark.parametrize(
    ("one", "other"),
    [
        ("What  is $\\frac{1}{2} \\times 3$?", "what is 1/2 * 3"),
        ("Give \\text{the sum} of 1,000 and three.", "give the sum of 1000 and 3"),
        ("<image1> Add $x \\leq 4$", "add x ≤ 4"),
    ],
)
def test_texts_without_their_dress(one: str, other: str) -> None:
    assert text_tokens(one) == text_tokens(other)


@pytest.mark.parametrize(
    ("one", "other", "equal"),
    [("0.5", "\\frac{1}{2}", True), ("12 cm", "12", True), ("2x", "2", False), ("-3", "3", False)],
)
def test_answer_keys(one: str, other: str, equal: bool) -> None:
    assert (answer_key(one) == answer_key(other)) is equal


def test_an_option_is_its_text() -> None:
    assert answer_of(Problem("x", "", "(B)", choices=("7", "12"))) == answer_of(AREA)


@pytest.mark.parametrize(
    ("question", "answer", "choices", "kind"),
    [
        ("WHAT is the  area of a triangle, with base $6$ and height $4$", "12", (), "same"),
        (
            "Find the area of a triangle whose base is six and whose height is 4.",
            "12",
            (),
            "similar",
        ),
        ("A triangle has base 6 and height 4. Compute its area.", "12", (), "similar"),
        ("Find the area of a triangle of height 4 and base 6.", "B", ("24", "12"), "similar"),
        ("What is the area of a triangle with base 6 and height 4?", "24", (), "same"),
        ("What is the area of a triangle with base 6 and height 5?", "15", (), None),
        ("What is the area of a triangle with base 8 and height 3?", "12", (), None),
        ("What is the perimeter of a square of side 3?", "12", (), None),
    ],
)
def test_near_duplicates_of_a_text(
    question: str, answer: str, choices: tuple, kind: str | None
) -> None:
    other = Problem("b", question, answer, choices=choices)
    found = find_duplicates([entry_of(other)], [entry_of(AREA)])
    assert (found[0].kind if found else None) == kind
    if found:
        assert found[0].of == "a"
        assert found[0].answers_agree == (answer != "24")
    assert len(find_duplicates([entry_of(AREA), entry_of(other)])) == len(found)


def test_problems_of_one_pattern_stay_unless_the_picture_is_the_same() -> None:
    """Chart pictures re-encoded and rescaled are found; other pictures of the same text stay."""
    problems = [generate(f"k{n}", ["chart"], [3], "rl").problem for n in range(40)]
    problems = list(
        {one.images: replace(one, id=str(n)) for n, one in enumerate(problems)}.values()
    )
    entries = [entry_of(one) for one in problems]
    assert len({(e.tokens, e.answer) for e in entries}) < len(entries), "no pair to be mistaken"
    assert find_duplicates(entries) == {}
    planted = []
    for one in problems[:12]:
        assert isinstance(one.images[0], bytes)
        picture = Image.open(io.BytesIO(one.images[0])).convert("RGB")
        large = picture.resize((2 * picture.width, 2 * picture.height), Image.Resampling.BICUBIC)
        planted += [encoded(picture, "JPEG", quality=80), encoded(large)]
    again = [
        entry_of(replace(problems[number // 2], id=f"p{number}", images=(data,)))
        for number, data in enumerate(planted)
    ]
    found = find_duplicates(again, entries)
    assert [found[number].of for number in range(24)] == [str(n // 2) for n in range(24)]


def test_a_problem_that_repeats_a_dropped_one_alone_stays() -> None:
    def entry(name: str, words: str) -> Entry:
        return Entry(name, tuple(words.split()), (), "1", ())

    chain = [entry("a", "p q r s"), entry("b", "p q r t"), entry("c", "p u r t")]
    assert list(find_duplicates(chain)) == [1]


def test_the_prefix_filter_is_exact() -> None:
    sets = [frozenset(f"{(i * k) % 17}" for k in range(1, 2 + i % 9)) for i in range(60)]
    for threshold in (0.3, 0.5, 0.8):
        expected = {
            (i, j) for j in range(60) for i in range(j) if jaccard(sets[i], sets[j]) >= threshold
        }
        assert expected
        assert set(similar_sets(sets, threshold)) == expected


def test_every_attempt_asks_for_all_four_behaviours() -> None:
    asked = {instruction(attempt) for attempt in range(4)}
    assert len(asked) == 4
    assert all(THINK_OPEN in one and "\\boxed{}" in one for one in asked)
    assert instruction(0) == instruction(4)


@pytest.mark.parametrize(
    ("text", "shown"),
    [
        ("First, I count the rows. Then the sum is 4.", {"planning"}),
        ("3*4=12. Check: 12/4=3, good.", {"evaluation"}),
        ("5+5=11? no, 10.", {"reflection"}),
        ("Wait, that is wrong.", {"reflection"}),
        ("Alternatively, use the other way.", {"exploration"}),
        ("It waits. 3+4=7.", set()),
    ],
)
def test_behaviours_by_their_words(text: str, shown: set[str]) -> None:
    assert set(behaviours(text)) == shown


def test_shares_of_the_behaviours() -> None:
    assert shares([("planning",), ("planning", "reflection")]) == {
        "planning": 1.0,
        "evaluation": 0.0,
        "reflection": 0.5,
        "exploration": 0.0,
    }
    assert set(shares([])) == set(BEHAVIOURS)


@pytest.mark.parametrize(
    ("response", "thinking"),
    [
        (f"{THINK_OPEN}a{THINK_CLOSE}b", "a"),
        (f"{THINK_OPEN}{THINK_CLOSE}b", None),
        (f"{THINK_OPEN}a", None),
        (f"{THINK_OPEN}a{THINK_CLOSE}b{THINK_CLOSE}c", None),
        (f"{THINK_OPEN}a{THINK_CLOSE} ", None),
        ("b", None),
    ],
)
def test_thinking_is_opened_and_closed_once(response: str, thinking: str | None) -> None:
    assert thinking_of(response) == thinking


def test_the_richest_chain_is_kept_and_no_copy_of_it() -> None:
    def answered(sample: int, thought: str) -> Answered:
        return Answered("x", sample, f"{THINK_OPEN}{thought}{THINK_CLOSE}7", 9, "stop", True)

    listed = [
        answered(0, "three and four make seven"),
        answered(1, "Wait, three and four make seven, check"),
        answered(2, "wait: three and four make seven. Check!"),
    ]
    kept = best_chains(listed, 3, 0.8)
    assert [one.attempt for one in kept] == [1, 0]
    assert kept[0].behaviours == ("evaluation", "reflection")
    assert len(best_chains(listed, 1, 0.8)) == 1


class RightGrader:
    """Everything is right that says 5."""

    def grade(self, groups, may_mask):
        return [
            replace(one, scores=(Score(float("5" in one.trajectories[0].text)),)) for one in groups
        ]


def test_chunks_are_asked_once_whole_and_in_order(tmp_path: Path) -> None:
    items = [Item(replace(AREA, id=str(n)), 0) for n in range(5)]
    asked: list[str] = []

    def answer(part):
        asked.extend(one.problem.id for one in part)
        return [
            Response(one.problem.id + "5" * (one.problem.id == "0"), 1, FinishReason.STOP)
            for one in part
        ]

    def run(file: Path):
        return ask(items, answer, RightGrader(), file, 2, lambda *_: None)  # pyright: ignore

    whole, torn = tmp_path / "whole.jsonl", tmp_path / "torn.jsonl"
    rows = run(whole)
    assert [row.right for row in rows] == [True, False, False, False, False]
    lines = whole.read_bytes().splitlines(keepends=True)
    torn.write_bytes(lines[0] + lines[1][:20])
    asked.clear()
    assert run(torn) == rows
    assert asked == ["2", "3", "4"]
    assert torn.read_bytes() == whole.read_bytes()
    items.reverse()
    with pytest.raises(ValueError, match="other problems"):
        run(whole)


def test_what_is_written_is_read_as_problems_and_as_a_warm_up_set(tmp_path: Path) -> None:
    drawn = generate("x", ["chart"], [1], "rl").problem
    rows = [
        problem_row(replace(drawn, choices=("1", "2"))) | {"response": "r", "pass_rate": 0.5},
        problem_row(AREA) | {"response": "s", "pass_rate": 1.0},
    ]
    file = tmp_path / "set.parquet"
    write_parquet(rows, {"response": "string", "pass_rate": "float64"}, file)
    first = file.read_bytes()
    write_parquet(rows, {"response": "string", "pass_rate": "float64"}, file)
    assert file.read_bytes() == first
    source = Source(format="plain", path=str(file))
    problems = load_problems(source)
    assert problems[0].images == drawn.images
    assert problems[0].choices == ("1", "2")
    assert problems[1].metadata["pass_rate"] == 1.0
    assert {one.response for one in example_stream([source], 0).stored()} == {"r", "s"}


class Stub(BaseHTTPRequestHandler):
    """An endpoint: busy once, then it says what it was asked."""

    requests: list[dict] = []  # noqa: RUF012
    busy = 1

    def do_POST(self) -> None:
        body = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
        if type(self).busy:
            type(self).busy -= 1
            self.send_error(503)
            return
        if body["model"] != "teacher":
            self.send_error(404)
            return
        self.requests.append(body | {"key": self.headers["Authorization"]})
        message = {"content": "\\boxed{12}", "reasoning_content": "Wait."}
        answer = {
            "choices": [{"message": message, "finish_reason": "stop"}],
            "usage": {"completion_tokens": 7},
        }
        data = json.dumps(answer).encode()
        self.send_response(200)
        self.send_header("Content-Length", str(len(data)))
        self.end_headers()
        self.wfile.write(data)

    def log_message(self, format: str, *args) -> None:
        """Says nothing."""


def test_an_endpoint_is_asked_with_pictures_and_seeds(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("time.sleep", lambda seconds: None)
    server = HTTPServer(("127.0.0.1", 0), Stub)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    try:
        url = f"http://127.0.0.1:{server.server_port}/v1"
        endpoint = Endpoint(url, "teacher", 0.7, 0.9, 64, seed=3, parallel=1, timeout_s=20, key="k")
        drawn = generate("x", ["chart"], [1], "warm-up").problem
        answers = endpoint([Item(drawn, 0, "Think."), Item(drawn, 1)])
        assert answers[0] == Response(
            f"{THINK_OPEN}Wait.{THINK_CLOSE}\\boxed{{12}}", 7, FinishReason.STOP
        )
        first, second = Stub.requests
        assert first["seed"] != second["seed"]
        assert first["key"] == "Bearer k"
        [picture, text] = first["messages"][0]["content"]
        assert picture["image_url"]["url"].startswith("data:image/png;base64,")
        assert text["text"].endswith("\nThink.")
        with pytest.raises(ValueError, match="refuses a request: 404"):
            replace(endpoint, model="other")([Item(drawn, 0)])
    finally:
        server.shutdown()
        server.server_close()


@pytest.mark.parametrize("answer", [[], {}, {"choices": [{"message": {"content": 3}}]}])
def test_what_is_no_chat_completion_is_said(answer: object) -> None:
    with pytest.raises(ValueError, match="no chat completion"):
        response_of(answer, "there")
