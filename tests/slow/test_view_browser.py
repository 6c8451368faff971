"""The page in a real browser: Debian's Chromium, driven by playwright."""

from __future__ import annotations

import json
import os
import shutil
import signal
import subprocess
import sys
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import made_run
import pytest

from thinking_rl.files.run_folder import RunFolder
from thinking_rl.report.view.bundle import write_bundle, write_report
from thinking_rl.report.view.run import RunView
from thinking_rl.report.view.server import Server

sync_api = pytest.importorskip("playwright.sync_api")

CHROMIUM = shutil.which("chromium") or shutil.which("chromium-browser")
NEEDED = "THINKING_RL_NEEDS_CHROMIUM"
"""Set where a missing browser is a failure."""
WAIT_MS = 15_000
ALONE = ["--no-sandbox", "--disable-background-networking", "--disable-component-update"]


@pytest.fixture(scope="module")
def browser() -> Iterator[Any]:
    if CHROMIUM is None:
        (pytest.fail if os.environ.get(NEEDED) else pytest.skip)("chromium is not installed")
    with sync_api.sync_playwright() as playwright:
        one = playwright.chromium.launch(executable_path=CHROMIUM, args=ALONE)
        yield one
        one.close()


class Visit:
    """A page of a browser, with every request and every error that it made."""

    def __init__(self, browser: Any) -> None:
        self.page = browser.new_page(viewport={"width": 1380, "height": 900})
        self.page.set_default_timeout(WAIT_MS)
        self.requests: list[str] = []
        self.errors: list[str] = []
        self.page.on("request", lambda request: self.requests.append(request.url))
        self.page.on("pageerror", lambda error: self.errors.append(str(error)))
        self.page.on("console", self._console)

    def _console(self, message: Any) -> None:
        if message.type == "error":
            self.errors.append(message.text)

    def go(self, base: str, to: str = "overview") -> None:
        """Open a view and wait until it is drawn."""
        self.page.goto("about:blank")
        self.page.goto(f"{base}#/{to}")
        self.page.wait_for_selector(f"body[data-ready^='{to.partition('?')[0]}']")

    def click(self, selector: str, becomes: str) -> None:
        """Click, and wait until another view is drawn."""
        self.page.click(selector)
        self.page.wait_for_selector(f"body[data-ready^='{becomes}']")

    def choose(self, selector: str, value: str) -> None:
        """Pick an option or fill a text, and wait until it has worked."""
        before = self.page.get_attribute("body", "data-ready")
        if selector == "#filter-text":
            self.page.fill(selector, value)
            self.page.press(selector, "Enter")
        else:
            self.page.select_option(selector, value)
        self.page.wait_for_selector(f"body:not([data-ready='{before}'])")

    def text(self, selector: str) -> str:
        return self.page.inner_text(selector)

    def texts(self, selector: str) -> list[str]:
        return self.page.locator(selector).all_inner_texts()


@pytest.fixture
def visit(browser: Any) -> Iterator[Visit]:
    one = Visit(browser)
    yield one
    one.page.close()
    assert one.errors == []


def served(*runs: RunFolder) -> Server:
    """A server of some runs, whose responses are all in the index."""
    server = Server([RunView(run.path) for run in runs])
    for run in server.runs:
        run.index.update()
    threading.Thread(target=server.serve_forever, args=(0.05,), daemon=True).start()
    return server


@pytest.fixture(scope="module")
def runs(tmp_path_factory: pytest.TempPathFactory) -> list[RunFolder]:
    folder = tmp_path_factory.mktemp("runs")
    return [
        made_run.finished_run(folder / "first", iterations=8),
        made_run.finished_run(folder / "second", iterations=8, seed=1, skill=0.45),
    ]


@pytest.fixture(scope="module")
def server(runs: list[RunFolder]) -> Iterator[Server]:
    with served(*runs) as one:
        yield one
        one.shutdown()


def test_overview_of_a_finished_run(visit: Visit, server: Server) -> None:
    visit.go(server.url)
    assert visit.text("#state") == "finished"
    charts = visit.page.eval_on_selector_all(
        "[data-chart]", "nodes => nodes.map(node => node.dataset.chart)"
    )
    assert {
        "Reward",
        "Accuracy",
        "Length, tokens",
        "Entropy, nats",
        "KL to the iteration's start",
        "Engine against learner, nats",
        "Groups without signal",
        "Not graded",
        "Tokens per second",
        "Warm-up: loss",
    } <= set(charts)
    assert "rollout" in visit.text("#timeline")
    assert "engine 1 idle 11." in visit.text("#timeline")
    assert "saved after 5 iterations" in visit.text("#events")
    assert visit.text("#count") == "368 responses"


def test_no_request_leaves_the_machine(visit: Visit, server: Server) -> None:
    for view in ("overview", "problems", "compare", "notes", "group?problem=13&stage=rl&at=0"):
        visit.go(server.url, view)
    local = (server.url, "data:", "about:")
    assert [url for url in visit.requests if not url.startswith(local)] == []
    assert any(url.startswith(f"{server.url}images/") for url in visit.requests)


def met(folder: RunFolder, test: Any) -> int:
    """How many problems have a response that meets a test."""
    return len({row["id"] for row in made_run.rows(folder) if test(row)})


FILTERS = [
    ("#filter-source", "sums", lambda row: row["source"] == "sums"),
    ("#filter-level", "3", lambda row: row["level"] == 3),
    ("#filter-outcome", "wrong", lambda row: row.get("outcome") == "wrong"),
    ("#filter-outcome", "not_graded", lambda row: row.get("outcome") == "not_graded"),
    ("#filter-finish", "length", lambda row: row["finish"] == "length"),
    ("#filter-at", "1", lambda row: (row["stage"], row["at"]) == ("rl", 0)),
    ("#filter-text", "SQUARES, PLUS 3?", lambda row: "squares, plus 3?" in row["question"]),
    ("#filter-text", "boxed{44}", lambda row: "boxed{44}" in row["response"]),
]


def total(visit: Visit) -> int:
    text = visit.text("#total")
    return 0 if text == "no problem" else int(text.split(" of ")[1].split()[0])


@pytest.mark.parametrize("source", ["server", "files"])
def test_every_filter(
    visit: Visit, server: Server, runs: list[RunFolder], tmp_path: Path, source: str
) -> None:
    base = server.url if source == "server" else bundle(runs, tmp_path)
    for selector, value, test in FILTERS:
        visit.go(base, "problems")
        visit.choose(selector, value)
        assert total(visit) == met(runs[0], test), (selector, value)
        where = f"{visit.page.url.partition('?')[2]}"
        visit.go(base, f"problems?{where}")  # what was filtered can be sent to somebody
        assert total(visit) == met(runs[0], test), (selector, value)


@pytest.mark.parametrize("source", ["server", "files"])
@pytest.mark.parametrize("order", ["pass_rate", "length", "disagreement"])
def test_every_order(
    visit: Visit, server: Server, runs: list[RunFolder], tmp_path: Path, source: str, order: str
) -> None:
    column = {"pass_rate": 6, "length": 8, "disagreement": 9}[order]
    visit.go(server.url if source == "server" else bundle(runs, tmp_path), "problems")
    visit.choose("#sort", order)
    shown = visit.texts(f"#problems tbody td:nth-child({column})")
    values = [float(text.strip().rstrip("%")) for text in shown if text.strip() != "–"]
    assert len(values) > 20
    assert values == sorted(values, reverse=True)


def bundle(runs: list[RunFolder], folder: Path) -> str:
    """Where a bundle of some runs opens."""
    return write_bundle([RunView(run.path) for run in runs], folder / "bundle").as_uri()


def group_of(run: RunFolder, identity: str) -> tuple[int, list[dict]]:
    """A problem's number, and its rows at RL iteration 0."""
    view = RunView(run.path)
    view.index.update()
    key = next(r["key"] for r in view.index.problems({}, limit=200)["rows"] if r["id"] == identity)
    rows = [r for r in made_run.rows(run) if (r["id"], r["at"], r["stage"]) == (identity, 0, "rl")]
    return key, rows


def test_a_group_with_its_picture(visit: Visit, server: Server, runs: list[RunFolder]) -> None:
    key, rows = group_of(runs[0], "shapes-2")
    visit.go(server.url, f"group?problem={key}&stage=rl&at=0")
    size = visit.page.eval_on_selector(
        "img.picture", "one => one.decode().then(() => [one.naturalWidth, one.naturalHeight])"
    )
    assert size == [112, 84]
    cards = visit.page.locator(".response")
    assert cards.count() == len(rows)
    for place, row in enumerate(rows):
        card = cards.nth(place)
        text = card.inner_text()
        assert row["outcome"].replace("_", " ") in text
        assert f"{row['length']} tokens" in text
        assert card.locator("details.thinking").get_attribute("open") is None  # folded
        assert card.locator(".segments i").count() == 2
        if row["extracted"] is not None:
            assert row["extracted"] in text
    formula = cards.nth(0).locator("details.thinking math").first
    cards.nth(0).locator("summary").click()
    assert formula.locator("msqrt").count() == 1
    visit.click("#modes a:nth-child(2)", "group")
    visit.page.wait_for_selector(".tokens span")
    assert (
        visit.page.locator(".response").nth(0).locator(".tokens span").count() == rows[0]["length"]
    )


@pytest.mark.parametrize(
    ("mode", "told"), [("difference", "engine less learner"), ("entropy", "entropy")]
)
def test_tokens_of_a_proof_by_what_the_learner_says(
    visit: Visit, server: Server, mode: str, told: str
) -> None:
    [key] = [
        row["key"]
        for row in server.runs[0].index.problems({"stage": "proof", "at": "1"})["rows"]
        if row["id"] == "shapes-10000"
    ]
    visit.go(server.url, f"group?problem={key}&stage=proof&at=1&mode={mode}")
    shades = visit.page.eval_on_selector_all(
        ".tokens span", "nodes => nodes.map(node => node.style.background)"
    )
    assert len(set(shades)) > 5
    visit.page.hover(".tokens span >> nth=3")
    assert told in visit.text("#tip")


def test_a_script_in_a_response_stays_text(
    visit: Visit, server: Server, runs: list[RunFolder], tmp_path: Path
) -> None:
    key, _ = group_of(runs[0], "shapes-2")
    report = write_report(runs[0]).as_uri()
    for base in (server.url, bundle(runs, tmp_path), report):
        for mode in ("text", "logprob"):
            at = "rl&at=0" if base != report else "evaluation&at=after_rl"
            if base == report:
                visit.go(base, "problems")
                visit.click("#problems tbody tr >> nth=0", "group")
            else:
                visit.go(base, f"group?problem={key}&stage={at}&mode={mode}")
            if mode == "text":
                visit.page.locator("details.thinking summary").nth(1).click()
                assert made_run.SCRIPT in visit.page.locator(".response").nth(1).inner_text()
            assert visit.page.locator("main script, main img[src='x']").count() == 0
            assert visit.page.evaluate("() => window.hacked") is None


def test_compare_pairs_problems(visit: Visit, server: Server, runs: list[RunFolder]) -> None:
    def rates(run: RunFolder) -> dict[str, float]:
        found: dict[str, list[bool]] = {}
        for row in made_run.rows(run):
            if row["at"] == "after_rl" and row["correct"] is not None:
                found.setdefault(row["id"], []).append(row["correct"])
        return {key: sum(one) / len(one) for key, one in found.items()}

    left, right = rates(runs[0]), rates(runs[1])
    gains = [right[key] - left[key] for key in left.keys() & right.keys()]
    visit.go(server.url, "compare")
    shown = visit.texts("#paired .value")
    difference = 100 * sum(gains) / len(gains)
    assert shown[2].replace("−", "-") == f"{difference:+.1f} points"
    assert shown[3:] == [str(sum(g > 0 for g in gains)), str(sum(g < 0 for g in gains))]
    assert visit.page.locator("#better tr").count() == sum(g > 0 for g in gains)
    visit.choose("#left", "0")
    assert "first: start" in visit.text("#paired")


def test_notes_are_written_and_taken_back(visit: Visit, tmp_path: Path) -> None:
    run = made_run.finished_run(tmp_path / "noted", iterations=1)
    with served(run) as server:
        visit.go(server.url, "group?problem=13&stage=rl&at=0")
        visit.page.fill(".response input >> nth=0", "is this <b>right</b>?")
        visit.page.press(".response input >> nth=0", "Enter")
        visit.page.wait_for_selector(".note")
        visit.page.click(".wrong-grader >> nth=1")
        visit.page.wait_for_selector(".response:nth-child(2) .note")
        lines = [json.loads(line) for line in run.notes.read_text().splitlines()]
        assert [line["kind"] for line in lines] == ["note", "grader_is_wrong"]
        visit.go(server.url, "notes")
        assert "is this <b>right</b>?" in visit.text("#notes")
        visit.go(server.url, "group?problem=13&stage=rl&at=0")
        visit.page.click(".note button >> nth=0")
        visit.page.wait_for_selector(".response:nth-child(1) .note", state="detached")
        assert [note["kind"] for note in server.runs[0].notes()] == ["grader_is_wrong"]
        server.shutdown()


def test_a_bundle_shows_the_same_numbers(
    visit: Visit, server: Server, runs: list[RunFolder], tmp_path: Path
) -> None:
    key, _ = group_of(runs[0], "shapes-2")
    views = {
        "overview": "main",
        "problems?sort=pass_rate&order=up": "main",
        "problems?outcome=right&level=2": "main",
        f"group?problem={key}&stage=rl&at=0": ".responses .top",
        "compare": "main",
    }
    files = bundle(runs, tmp_path)
    for view, selector in views.items():
        shown = []
        for base in (server.url, files):
            visit.go(base, view)
            shown.append(visit.texts(selector))
        assert shown[0] == shown[1], view
        assert len(shown[0][0]) > 60
    assert (
        visit.page.eval_on_selector("img", "one => one.decode().then(() => one.naturalWidth)")
        == 112
    )
    outside = [url for url in visit.requests if not url.startswith(("file:", "data:", "about:"))]
    assert all(url.startswith(server.url) for url in outside)


def test_the_report_alone(visit: Visit, runs: list[RunFolder], tmp_path: Path) -> None:
    alone = tmp_path / "report.html"
    alone.write_bytes(write_report(runs[0]).read_bytes())
    visit.go(alone.as_uri())
    assert visit.text("#state") == "finished"
    visit.go(alone.as_uri(), "problems")
    assert total(visit) == made_run.HELD_OUT
    visit.click("#problems tbody tr:has(img) >> nth=0", "group")
    assert (
        visit.page.eval_on_selector(
            "img.picture", "one => one.decode().then(() => one.naturalWidth)"
        )
        == 112
    )
    assert visit.page.locator(".response").count() == 4
    assert [url for url in visit.requests if not url.startswith(("file:", "data:", "about:"))] == []


WRITER = """
import sys, time
from pathlib import Path
import made_run
writer = made_run.Writer(Path(sys.argv[1]), iterations=1000)
writer.warm_up()
writer.events.write("stage", "rl begins", stage="rl", total=1000)
for number in range(1000):
    writer.iteration(number)
    print(number, flush=True)
    time.sleep(0.3)
"""


def test_a_run_that_goes_on_and_is_killed(visit: Visit, tmp_path: Path) -> None:
    line = [sys.executable, "-c", WRITER, str(tmp_path / "going")]
    support = str(Path(__file__).parents[1] / "support")
    environment = os.environ | {"PYTHONPATH": support}
    with subprocess.Popen(line, stdout=subprocess.PIPE, env=environment) as writer:
        try:
            assert writer.stdout
            writer.stdout.readline()
            with served(RunFolder(tmp_path / "going")) as server:
                visit.go(server.url)
                assert visit.text("#state") == "running"
                assert "time left" in visit.text("main")
                before = visit.text("main")
                changed = "before => document.querySelector('main').innerText !== before"
                visit.page.wait_for_function(changed, arg=before, timeout=60_000)
                count = int(visit.text("#count").split()[0])
                writer.send_signal(signal.SIGKILL)
                writer.wait(10)
                with RunFolder(tmp_path / "going").responses.open("ab") as file:
                    file.write(b'{"stage": "rl", "at": 7, "id": "torn')
                visit.page.wait_for_selector("#state.bad", timeout=60_000)
                assert visit.text("#state") == "killed"
                visit.go(server.url)
                assert int(visit.text("#count").split()[0]) >= count
                visit.go(server.url, "problems")
                visit.click("#problems tbody tr >> nth=0", "group")
                assert visit.page.locator(".response").count() >= 1
                server.shutdown()
        finally:
            writer.kill()


def test_dark_and_light(visit: Visit, server: Server) -> None:
    visit.go(server.url)
    colours = []
    for _ in range(2):
        colours.append(visit.page.evaluate("() => getComputedStyle(document.body).backgroundColor"))
        visit.page.click("#theme")
    assert colours[0] != colours[1]


@pytest.mark.parametrize(
    ("source", "element"),
    [
        (r"\frac{1}{2}", "mfrac"),
        (r"x^{2}_{1}", "msubsup"),
        (r"\sqrt[3]{x+1}", "mroot"),
        (r"\begin{pmatrix}1 & 2\\3 & 4\end{pmatrix}", "mtable"),
        (r"\left(\frac{a}{b}\right)^2", "msup"),
        (r"\text{if } x \le 3", "mtext"),
        (r"\unknowncommand{x}", None),
        (r"\frac{1}{", None),
        ("{" * 200, None),
    ],
)
def test_formulas(visit: Visit, server: Server, source: str, element: str | None) -> None:
    visit.go(server.url)
    shown = visit.page.evaluate(
        "(text) => { const one = prose(`$${text}$`); return [one.innerHTML, one.textContent]; }",
        source,
    )
    if element:
        assert f"<{element}>" in shown[0]
    else:
        assert shown[1] == f"${source}$"  # as it was written
