"""The index of responses, the state of a run, notes, tokens, and what the server lets through."""

from __future__ import annotations

import base64
import http.client
import json
import os
import shutil
import threading
from collections.abc import Iterator
from pathlib import Path

import made_run
import pytest

from rewards.grade import read_rows
from thinking_rl import view
from thinking_rl.files.run_folder import RunFolder
from thinking_rl.report.view import index as index_module
from thinking_rl.report.view.answers import annotate, answer
from thinking_rl.report.view.bundle import script_json, write_bundle, write_report
from thinking_rl.report.view.index import Index
from thinking_rl.report.view.notes import rows_to_grade
from thinking_rl.report.view.run import RunView
from thinking_rl.report.view.server import Server, content_policy, is_loopback
from thinking_rl.report.view.tokens import token_texts


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> RunFolder:
    return made_run.finished_run(tmp_path_factory.mktemp("runs") / "made", iterations=3)


@pytest.fixture
def folder(made: RunFolder, tmp_path: Path) -> RunFolder:
    shutil.copytree(made.path, tmp_path / "run")
    return RunFolder(tmp_path / "run")


@pytest.fixture
def run(folder: RunFolder) -> RunView:
    view = RunView(folder.path)
    view.index.update()
    return view


def meets(row: dict, filters: dict[str, str], text: str) -> bool:
    said = (row["question"] + "\n" + row["response"]).lower()
    return text in said and all(str(row[name]) == value for name, value in filters.items())


@pytest.mark.parametrize(
    ("filters", "text"),
    [
        ({}, ""),
        ({"source": "sums"}, ""),
        ({"level": "3"}, ""),
        ({"outcome": "wrong"}, ""),
        ({"outcome": "not_graded"}, ""),
        ({"finish": "length"}, ""),
        ({"finish": "repetition"}, ""),
        ({"outcome": "right", "finish": "length"}, ""),
        ({"stage": "rl", "at": "1"}, ""),
        ({}, "how many squares"),
        ({}, "100%_"),
        ({"source": "shapes", "outcome": "right"}, "boxed{3}"),
    ],
)
def test_filters_say_what_the_file_says(run: RunView, filters: dict, text: str) -> None:
    expected: dict[tuple[str, str], list[dict]] = {}
    for row in made_run.rows(run.folder):
        if meets(row, filters, text):
            expected.setdefault((row["source"], row["id"]), []).append(row)
    found = run.index.problems(filters, text=text)
    assert found["total"] == len(expected)
    for row in found["rows"]:
        responses = expected[(row["source"], row["id"])]
        verdicts = [r["correct"] for r in responses if r["correct"] is not None]
        assert row["responses"] == len(responses)
        assert row["pass_rate"] == (
            pytest.approx(sum(verdicts) / len(verdicts)) if verdicts else None
        )


@pytest.mark.parametrize("sort", ["pass_rate", "length", "disagreement", "reward", "level", "time"])
@pytest.mark.parametrize("descending", [True, False])
def test_sorts(run: RunView, sort: str, descending: bool) -> None:
    rows = run.index.problems({}, sort=sort, descending=descending)["rows"]
    values = [row["key"] if sort == "time" else row[sort] for row in rows]
    if sort == "time":
        newest = {row["key"]: max(m[9] for m in run.index.marks(row["key"])) for row in rows}
        values = [newest[key] for key in values]
    known = [value for value in values if value is not None]
    assert values[: len(known)] == known == sorted(known, reverse=descending)


def test_pages_are_whole(run: RunView) -> None:
    everything = run.index.problems({})
    pages = [run.index.problems({}, offset=start, limit=7)["rows"] for start in range(0, 60, 7)]
    assert [row["key"] for page in pages for row in page] == [
        row["key"] for row in everything["rows"]
    ]


@pytest.mark.parametrize("wrong", [{"filters": {"rowid": "1"}}, {"filters": {}, "sort": "1; --"}])
def test_nothing_else_reaches_the_index(run: RunView, wrong: dict) -> None:
    with pytest.raises(ValueError, match="filters are"):
        run.index.problems(**wrong)


def test_a_group_is_read_from_the_file(run: RunView) -> None:
    [row] = run.index.problems({"stage": "rl", "at": "0"}, limit=1)["rows"]
    group = run.group(row["key"], "rl", "0")
    expected = [
        one
        for one in made_run.rows(run.folder)
        if (one["stage"], one["at"], one["id"]) == ("rl", 0, row["id"])
    ]
    assert [one["response"] for one in group["rows"]] == [one["response"] for one in expected]
    assert [len(one["tokens"]) for one in group["rows"]] == [one["length"] for one in expected]
    with pytest.raises(ValueError, match="no responses at rl 77"):
        run.group(row["key"], "rl", "77")


def test_the_index_follows_the_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(index_module, "BATCH", 16)
    writer = made_run.Writer(tmp_path / "run", iterations=4)
    index = Index(writer.folder)
    assert index.update()
    for number in range(3):
        writer.iteration(number, problems=4)
        with writer.folder.responses.open("ab") as file:
            file.write(b'{"stage": "rl", "torn')  # the writer is in the middle of a row
        index.update()
        assert index.size()["responses"] == (number + 1) * 18
        os.truncate(writer.folder.responses, writer.folder.responses.stat().st_size - 21)
        writer.responses._file.seek(0, os.SEEK_END)


def test_a_run_that_went_back_is_indexed_anew(tmp_path: Path) -> None:
    writer = made_run.Writer(tmp_path / "run", iterations=4)
    writer.iteration(0)
    state = writer.responses.state_dict()
    writer.iteration(1)
    index = Index(writer.folder)
    index.update()
    writer.responses.load_state_dict(state)
    for number in (1, 2):  # longer than before: the length alone would not tell
        writer.iteration(number, problems=12)
    index.update()
    found = index.problems({})
    ids = {row["id"] for row in made_run.rows(writer.folder)}
    assert {row["id"] for row in found["rows"]} == ids
    assert index.size()["bytes"] == index.size()["total"]


def test_a_damaged_index_is_made_anew(run: RunView) -> None:
    before = run.index.size()
    for end in ("-wal", "-shm"):
        Path(f"{run.folder.index}{end}").unlink(missing_ok=True)
    run.folder.index.write_bytes(b"no database" * 1000)
    run.index.update()
    assert run.index.size() == before


def test_lines_that_are_no_response_are_passed_over(folder: RunFolder) -> None:
    with folder.responses.open("a") as file:
        file.write('not json\n["a list"]\n{"id": 1}\n')
    index = Index(folder)
    index.update()
    assert index.size()["responses"] == len(list(made_run.rows_before_damage(folder)))
    assert index.size()["bytes"] == index.size()["total"]


def test_metrics_come_in_parts_and_begin_anew_where_they_changed(tmp_path: Path) -> None:
    writer = made_run.Writer(tmp_path / "run")
    writer.iteration(0)
    run = RunView(tmp_path / "run")
    first = run.overview()
    writer.iteration(1)
    second = run.overview(first["start"], first["check"])
    assert (first["anew"], second["anew"]) == (True, False)
    assert [row["iteration"] for row in second["rows"]] == [1]
    text = writer.folder.metrics.read_text()
    writer.folder.metrics.write_text(text.replace('"iteration": 1', '"iteration": 7') + text)
    third = run.overview(second["start"], second["check"])
    assert third["anew"]
    assert [row["iteration"] for row in third["rows"]] == [0, 7, 0, 1]


def test_states(tmp_path: Path) -> None:
    writer = made_run.Writer(tmp_path / "run")
    run = RunView(tmp_path / "run")
    assert run.overview()["state"]["state"] == "running"  # this very process
    gone = {"host": made_run.this_process()["host"], "pid": os.getpid(), "born": 1}
    writer.events.write("started", "another process with our number", **gone)
    assert run.overview()["state"]["state"] == "killed"
    writer.events.write("failed", "error: disk full")
    assert run.overview()["state"] == {"state": "failed", "text": "error: disk full"}
    writer.events.write("started", "it goes on elsewhere", host="elsewhere", pid=1, born=5)
    assert run.overview()["state"]["state"] == "running"
    for file in writer.folder.path.glob("*"):
        os.utime(file, (0, 0))
    assert run.overview()["state"]["state"] == "quiet"
    writer.finish()
    assert run.overview()["state"]["state"] == "finished"


def test_a_folder_without_a_run(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="no run"):
        RunView(tmp_path)


def test_tokens_are_read_from_the_vocabulary(tmp_path: Path) -> None:
    tokens = [b"a", " €".encode(), "€".encode()[:1], "€".encode()[1:], b"\xff"]
    lines = [f"{base64.b64encode(token).decode()} {i}\n" for i, token in enumerate(tokens)]
    (tmp_path / "tiktoken.model").write_text("".join(lines))
    special = {"added_tokens_decoder": {"9": {"content": "<|im_end|>"}}}
    (tmp_path / "tokenizer_config.json").write_text(json.dumps(special))
    assert token_texts(tmp_path, [[0, 1, 9], [2, 3, 4, 77]]) == [
        ["a", " €", "<|im_end|>"],
        ["", "€", "\ufffd", "⟨77⟩"],
    ]


def test_marks_come_back_as_rows_to_grade(run: RunView) -> None:
    [row] = run.index.problems({"outcome": "wrong"}, limit=1)["rows"]
    number = next(m[9] for m in run.index.marks(row["key"]) if m[2] == "wrong")
    annotate([run], {"run": 0, "number": number, "kind": "note", "text": "look"})
    mark = annotate([run], {"run": 0, "number": number, "kind": "grader_is_wrong", "text": ""})
    assert [note["kind"] for note in run.notes()] == ["note", "grader_is_wrong"]
    [exported] = rows_to_grade(run.folder)
    [(problem, response)] = read_rows([json.dumps(exported)])
    original = run.index.row(number)
    assert (problem.id, problem.answer, response) == (
        original["id"],
        original["answer"],
        original["response"],
    )
    assert exported["graded"]["correct"] is False
    annotate([run], {"run": 0, "remove": mark["note"]})
    assert rows_to_grade(run.folder) == []
    run.folder.clear()
    assert len(run.notes()) == 1  # what people wrote outlives the run


@pytest.mark.parametrize(
    "said",
    [
        {"number": 1, "kind": "note", "text": " "},
        {"number": 1, "kind": "praise", "text": "x"},
        {"number": 1, "kind": "note", "text": "x" * 10_001},
        {"number": 10**6, "kind": "note", "text": "x"},
        {"run": 4, "number": 1, "kind": "note", "text": "x"},
    ],
)
def test_notes_that_are_none(run: RunView, said: dict) -> None:
    with pytest.raises(ValueError, match=r"has a text|no response|no run"):
        annotate([run], said)
    assert not run.folder.notes.exists()


@pytest.fixture
def server(run: RunView) -> Iterator[Server]:
    with Server([run]) as one:
        threading.Thread(target=one.serve_forever, args=(0.05,), daemon=True).start()
        yield one
        one.shutdown()


def ask(
    server: Server, path: str, headers: dict | None = None, body: str | None = None
) -> http.client.HTTPResponse:
    connection = http.client.HTTPConnection("127.0.0.1", server.server_address[1], timeout=10)
    connection.request("GET" if body is None else "POST", path, body=body, headers=headers or {})
    return connection.getresponse()


@pytest.mark.parametrize(
    ("path", "headers", "status"),
    [
        ("/", {}, 200),
        ("/", {"Host": "localhost:9999"}, 200),
        ("/", {"Host": "evil.example"}, 403),  # a name elsewhere that points to this machine
        ("/api/runs", {"Host": "evil.example"}, 403),
        ("/api/nothing", {}, 400),
        ("/api/group?problem=1", {}, 400),
        ("/api/overview?run=-1", {}, 400),
        ("/images/../recipe.yaml", {}, 404),
        ("/images/%2e%2e%2frecipe.yaml", {}, 404),
        ("/recipe.yaml", {}, 404),
    ],
)
def test_who_may_ask_what(server: Server, path: str, headers: dict, status: int) -> None:
    assert ask(server, path, headers).status == status


def test_a_picture_comes_from_the_runs_own_store(server: Server, run: RunView) -> None:
    file = next(run.folder.images.iterdir())
    response = ask(server, f"/images/{file.stem}")
    assert (response.status, response.getheader("Content-Type")) == (200, "image/png")
    assert response.read() == file.read_bytes()


@pytest.mark.parametrize(
    ("headers", "status"),
    [
        ({"Content-Type": "application/json"}, 200),
        ({"Content-Type": "text/plain"}, 403),  # what a form of another page can send
        ({"Content-Type": "application/json", "Origin": "http://evil.example"}, 403),
    ],
)
def test_notes_come_from_the_page_alone(
    server: Server, run: RunView, headers: dict, status: int
) -> None:
    body = json.dumps({"run": 0, "number": 1, "kind": "note", "text": "hello"})
    assert ask(server, "/api/annotate", headers, body).status == status
    assert len(run.notes()) == (status == 200)


def test_other_machines_need_a_token(run: RunView) -> None:
    with pytest.raises(ValueError, match="--token"):
        Server([run], host="0.0.0.0")
    with Server([run], host="0.0.0.0", token="secret") as one:
        threading.Thread(target=one.serve_forever, args=(0.05,), daemon=True).start()
        assert ask(one, "/").status == 403
        assert ask(one, "/?token=guess").status == 403
        cookie = ask(one, "/?token=secret").getheader("Set-Cookie") or ""
        assert "HttpOnly" in cookie
        assert ask(one, "/api/runs", {"Cookie": cookie.partition(";")[0]}).status == 200
        one.shutdown()


@pytest.mark.parametrize(
    ("host", "own"),
    [("127.0.0.1", True), ("::1", True), ("localhost", True), ("0.0.0.0", False), ("x.y", False)],
)
def test_loopback(host: str, own: bool) -> None:
    assert is_loopback(host) == own


def test_the_browser_is_told_to_load_nothing_else(server: Server) -> None:
    policy = ask(server, "/").getheader("Content-Security-Policy") or ""
    assert policy.startswith("default-src 'none'; script-src 'sha256-")
    assert "http" not in policy
    assert content_policy("<script>a</script>") != content_policy("<script>b</script>")


def test_data_cannot_end_a_script() -> None:
    text = script_json({"x": "</script><!--&\u2028"})
    assert not set("<>&\u2028") & set(text)
    assert json.loads(text) == {"x": "</script><!--&\u2028"}


def test_a_bundle_holds_every_group_and_picture(run: RunView, tmp_path: Path) -> None:
    page = write_bundle([run], tmp_path / "bundle")
    groups = {(r["stage"], str(r["at"]), r["id"]) for r in made_run.rows(run.folder)}
    assert len(list((page.parent / "data").glob("group-*.js"))) == len(groups)
    names = {file.name for file in run.folder.images.iterdir()}
    assert {file.name for file in (page.parent / "images").iterdir()} == names
    write_bundle([run], tmp_path / "bundle")  # over an earlier one
    (tmp_path / "mine").mkdir()
    (tmp_path / "mine" / "thesis.tex").write_text("x")
    with pytest.raises(ValueError, match="other files"):
        write_bundle([run], tmp_path / "mine")


def test_a_report_is_one_file(run: RunView) -> None:
    text = write_report(run.folder).read_text()
    assert "data:image/png;base64," in text
    assert made_run.SCRIPT not in text
    assert 'src="' not in text.partition("<script>window")[0]


def test_the_command_prints_marks_and_says_what_is_wrong(
    folder: RunFolder, capsys: pytest.CaptureFixture[str]
) -> None:
    def command(*arguments: str) -> tuple[int, str, str]:
        code = view.main(arguments)
        said = capsys.readouterr()
        return code, said.out, said.err

    run = RunView(folder.path)
    run.index.update()
    annotate([run], {"number": 1, "kind": "grader_is_wrong", "text": "it is right"})
    _, out, _ = command(str(folder.path), "--marks")
    assert json.loads(out)["remark"] == "it is right"
    code, _, err = command(str(folder.path / "nowhere"))
    assert (code, err.count("no run")) == (2, 1)
    code, _, err = command(str(folder.path), "--host", "0.0.0.0")
    assert (code, "--token" in err) == (2, True)


def test_questions(run: RunView) -> None:
    assert answer([run], "runs", {})[0]["name"] == "run"
    assert len(answer([run], "scores", {"stage": "evaluation", "at": "start"})) == made_run.HELD_OUT
    with pytest.raises(ValueError, match="no question"):
        answer([run], "nothing", {})
