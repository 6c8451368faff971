"""Data sources: what each format means, what is checked, and what the errors say."""

import io
import json
import os
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from PIL import Image

from thinking_rl.data import check_source, example_stream, load_problems
from thinking_rl.data.images import Marks
from thinking_rl.recipe.schema import Source


def png(colour: str) -> bytes:
    buffer = io.BytesIO()
    Image.new("RGB", (3, 2), colour).save(buffer, "PNG")
    return buffer.getvalue()


RED, BLUE = png("red"), png("blue")


def write(path: Path, rows: list[dict]) -> Path:
    path.write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")
    return path


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """A data folder with two pictures, inside a folder that holds one more."""
    data = tmp_path / "data"
    (data / "images").mkdir(parents=True)
    (data / "images/1.png").write_bytes(RED)
    (data / "images/2.png").write_bytes(BLUE)
    (tmp_path / "secret.png").write_bytes(RED)
    return data


def only(source: Source):
    (problem,) = load_problems(source)
    return problem


# --- formats


def test_mathvision(folder: Path):
    row = {
        "id": "9",
        "question": "Which?\n<image1>",
        "options": ["A", "B"],
        "answer": "B",
        "solution": "Look.",
        "level": 2,
        "subject": "counting",
        "image": "images/1.png",
    }
    problem = only(Source(format="mathvision", path=str(write(folder / "x.jsonl", [row]))))
    assert (problem.id, problem.question, problem.answer) == ("9", "Which?\n<image1>", "B")
    assert problem.images == (folder.resolve() / "images/1.png",)
    assert (problem.choices, problem.level, problem.subject) == (("A", "B"), 2, "counting")
    assert (problem.source, problem.metadata) == ("x", {"solution": "Look."})


def test_pictures_can_be_left_out(folder: Path):
    row = {"id": "9", "question": "Which?", "answer": "B", "image": "images/nowhere.png"}
    source = Source(format="mathvision", path=str(write(folder / "x.jsonl", [row])))
    (problem,) = load_problems(source, pictures=False)
    assert (problem.id, problem.images) == ("9", ())


def test_mathvision_prefers_the_picture_in_the_table(tmp_path: Path):
    row = {
        "id": "1",
        "question": "q <image1>",
        "answer": "3",
        "options": [],
        "level": 1,
        "image": "images/nowhere.jpg",
        "decoded_image": {"bytes": RED, "path": None},
    }
    pq.write_table(pa.Table.from_pylist([row]), tmp_path / "test.parquet")
    problem = only(Source(format="mathvision", path=str(tmp_path), split="test"))
    assert problem.images == (RED,)


def test_gsm8k(tmp_path: Path):
    row = {"question": "How many?", "answer": "5*300=<<5*300=1500>>1500\n#### 1,500"}
    problem = only(Source(format="gsm8k", path=str(write(tmp_path / "x.jsonl", [row]))))
    assert (problem.id, problem.answer) == ("0", "1500")
    assert problem.metadata == {"solution": "5*300=<<5*300=1500>>1500"}


def test_geometry3k(tmp_path: Path):
    row = {
        "images": [{"bytes": RED, "path": None}, {"bytes": BLUE, "path": None}],
        "problem": "<image>Find x. Compare <image>.",
        "answer": "4 \\sqrt { 2 }",
    }
    pq.write_table(pa.Table.from_pylist([row]), tmp_path / "x.parquet")
    problem = only(Source(format="geometry3k", path=str(tmp_path / "x.parquet")))
    assert problem.question == "<image1>Find x. Compare <image2>."
    assert problem.images == (RED, BLUE)
    assert problem.choices == ()


def test_mmmu(tmp_path: Path):
    row = {
        "id": "validation_Art_1",
        "question": "Compare <image 1> and <image 3>.",
        "options": "['It\\'s red', '<image 3>']",
        "answer": "B",
        "image_1": {"bytes": RED, "path": "a.png"},
        "image_2": None,
        "image_3": {"bytes": BLUE, "path": "b.png"},
        "question_type": "multiple-choice",
        "subfield": "Drawing",
    }
    pq.write_table(pa.Table.from_pylist([row]), tmp_path / "x.parquet")
    problem = only(Source(format="mmmu", path=str(tmp_path / "x.parquet")))
    assert problem.question == "Compare <image1> and <image2>."
    assert problem.choices == ("It's red", "<image2>")
    assert problem.images == (RED, BLUE)
    assert problem.subject == "Drawing"
    assert problem.metadata["question_type"] == "multiple-choice"


def test_mathvista(folder: Path):
    row = {
        "pid": "7",
        "question": "Which one?",
        "choices": ["cat", "dog"],
        "unit": None,
        "precision": 1.0,
        "answer": "dog",
        "question_type": "multi_choice",
        "answer_type": "text",
        "query": "Hint: ...",
        "image": "images/2.png",
        "response": "somebody else's",
    }
    problem = only(Source(format="mathvista", path=str(write(folder / "x.jsonl", [row]))))
    assert (problem.id, problem.answer, problem.choices) == ("7", "dog", ("cat", "dog"))
    assert problem.metadata == {
        "query": "Hint: ...",
        "question_type": "multi_choice",
        "answer_type": "text",
        "precision": 1.0,
    }


def test_plain_has_little_and_the_recipe_maps_columns(folder: Path):
    row = {"prompt": "Sum of <image> and <image>?", "gold": 12, "pics": ["1.png", "2.png"]}
    source = Source(
        format="plain",
        path=str(write(folder / "x.jsonl", [row])),
        image_root=str(folder / "images"),
        columns={"question": "prompt", "answer": "gold", "images": "pics"},
    )
    problem = only(source)
    assert problem.question == "Sum of <image1> and <image2>?"
    assert problem.answer == "12"
    assert [Path(str(image)).name for image in problem.images] == ["1.png", "2.png"]


def test_responses_come_from_their_column(tmp_path: Path):
    row = {"question": "1+1?", "answer": "2", "response": "◁think▷1+1=2◁/think▷2"}
    source = Source(format="plain", path=str(write(tmp_path / "x.jsonl", [row])))
    (example,) = example_stream([source], seed=0).draw(1)
    assert example.response == "◁think▷1+1=2◁/think▷2"
    row["cot"] = row.pop("response")
    write(tmp_path / "x.jsonl", [row])
    with pytest.raises(ValueError, match="row 1: no response"):
        example_stream([source], seed=0)
    mapped = source.model_copy(update={"columns": {"response": "cot"}})
    assert example_stream([mapped], seed=0).draw(1)[0].response == row["cot"]


@pytest.mark.parametrize(
    ("numbers", "text", "expected"),
    [
        ([1, 2], "<image 2> <image 1>", "<image2> <image1>"),
        ([1], "<image> and <image>", "<image1> and <image>"),
        ([], "the tag <image> in HTML", "the tag <image> in HTML"),
        ([1], "<image2>", "<image2>"),
        ([2], "<image 2>", "<image1>"),
    ],
)
def test_marks(numbers: list[int], text: str, expected: str):
    assert Marks(numbers).rewrite(text) == expected


def test_hub(monkeypatch: pytest.MonkeyPatch):
    datasets = pytest.importorskip("datasets")
    features = datasets.Features(
        {
            "problem": datasets.Value("string"),
            "answer": datasets.Value("string"),
            "images": datasets.List(datasets.Image()),
        }
    )
    rows = [{"problem": "<image>?", "answer": "3", "images": [Image.new("RGB", (3, 2), "red")]}]
    table = datasets.Dataset.from_list(rows, features=features)
    asked = []

    def load(*args, **kwargs):
        asked.append((args, kwargs))
        if args[0] == "nobody/nothing":
            raise FileNotFoundError("no such data set")
        return table

    monkeypatch.setattr(datasets, "load_dataset", load)
    problem = only(Source(format="geometry3k", path="owner/name", subset="s", split="test"))
    assert asked == [(("owner/name", "s"), {"split": "test"})]
    assert problem.source == "owner/name"
    assert isinstance(problem.images[0], bytes)
    assert Image.open(io.BytesIO(problem.images[0])).getpixel((0, 0)) == (255, 0, 0)
    with pytest.raises(ValueError, match="nobody/nothing: neither a file or folder"):
        load_problems(Source(format="plain", path="nobody/nothing"))
    assert "hub" in check_source(Source(format="plain", path="owner/name"))


# --- files and folders


def test_a_folder_gives_the_files_of_the_split(tmp_path: Path):
    row = {"question": "q", "answer": "1"}
    write(tmp_path / "train-0.jsonl", [{**row, "id": "a"}])
    pq.write_table(pa.Table.from_pylist([{**row, "id": "b"}]), tmp_path / "train-1.parquet")
    write(tmp_path / "test.jsonl", [{**row, "id": "c"}])
    (tmp_path / "README.md").write_text("not data")
    source = Source(format="plain", path=str(tmp_path))
    assert [problem.id for problem in load_problems(source)] == ["a", "b"]
    with pytest.raises(ValueError, match=r"split 'val' among test.jsonl, train-0.jsonl"):
        load_problems(source.model_copy(update={"split": "val"}))


def test_limit_order_and_shuffle(tmp_path: Path):
    rows = [{"question": "q", "answer": n} for n in range(30)]
    source = Source(format="plain", path=str(write(tmp_path / "x.jsonl", rows)), limit=20)
    in_order = [problem.answer for problem in load_problems(source)]
    assert in_order == [str(n) for n in range(20)]
    shuffled = [problem.answer for problem in load_problems(source, seed=1)]
    assert shuffled != in_order
    assert sorted(shuffled) == sorted(in_order)
    assert check_source(source) == "x: 20 problems, columns question, answer"


# --- errors


ROW = {"question": "q", "answer": "1"}


@pytest.mark.parametrize(
    ("rows", "options", "message"),
    [
        ([{"qestion": "q", "answer": 1}], {}, r"row 1: no column question .*mean 'qestion'.*found"),
        ([ROW, {"question": "q", "answer": " "}], {}, "row 2: answer: missing or empty"),
        ([{"question": "q", "answer": None}], {}, "row 1: answer: missing or empty"),
        ([{"question": "q", "answer": float("nan")}], {}, "row 1: answer: missing or empty"),
        ([{"question": "", "answer": "1"}], {}, "row 1: question: missing or empty"),
        ([{"question": ["q"], "answer": "1"}], {}, "row 1: question: expected text.*list"),
        ([{"question": "\ud800", "answer": "1"}], {}, "row 1: question: .*surrogate"),
        ([{**ROW, "choices": "A"}], {}, "row 1: choices: expected a list of texts, found str"),
        ([{**ROW, "level": "hard"}], {}, "row 1: level: expected a whole number.*'hard'"),
        ([{**ROW, "level": 1e999}], {}, "row 1: level: expected a whole number.*'inf'"),
        ([{**ROW, "images": 3}], {}, "row 1: images: an image must be a path"),
        ([{**ROW, "id": "a"}, {**ROW, "id": "a"}], {}, "problems 1 and 2 share the id 'a'"),
        ([ROW], {"columns": {"answr": "a"}}, "'answr' is no field.*did you mean 'answer'"),
        ([ROW], {"columns": {"level": "lvl"}}, "row 1: no column lvl for level"),
        ([], {}, "x.jsonl: the data set is empty"),
        ([ROW], {"format": "gsm8k"}, "row 1: answer: expected a worked solution"),
        ([{**ROW, "options": "['a'"}], {"format": "mmmu"}, "row 1: options: expected a list"),
        ([{**ROW, "answer": "?"}], {"format": "mmmu"}, "row 1: answer: hidden in this split"),
    ],
)
def test_bad_rows(tmp_path: Path, rows: list[dict], options: dict, message: str):
    path = str(write(tmp_path / "x.jsonl", rows))
    source = Source(**{"format": "plain", "path": path, **options})
    with pytest.raises(ValueError, match=message) as error:
        load_problems(source)
    assert "x.jsonl" in str(error.value) or "columns:" in str(error.value)
    if "share the id" not in message:
        with pytest.raises(ValueError, match=message):
            check_source(source)


@pytest.mark.parametrize(
    ("line", "message"),
    [
        (b'{"question": "q", ', "row 2: not valid JSON"),
        (b"[1, 2]", "row 2: expected a JSON object, found list"),
        (b'{"question": "\xff"}', "row 2: not valid JSON"),
        (b"[" * 100_000, "row 2: not valid JSON"),
    ],
)
def test_bad_lines(tmp_path: Path, line: bytes, message: str):
    (tmp_path / "x.jsonl").write_bytes(json.dumps(ROW).encode() + b"\n" + line + b"\n")
    with pytest.raises(ValueError, match=message):
        load_problems(Source(format="plain", path=str(tmp_path / "x.jsonl")))


@pytest.mark.parametrize(
    ("image", "message"),
    [
        ("images/3.png", "missing under"),
        ("../secret.png", "lies outside the folder"),
        ("images/../../secret.png", "lies outside the folder"),
        ("link.png", "lies outside the folder"),
        ("images", "missing under"),
        ("a\0b", "not a usable path"),
        ("x" * 5000, "not a usable path"),
        ("loop", "not a usable path|missing under"),
        ("https://example.com/1.png", "missing under"),
    ],
)
def test_images_stay_in_their_folder(folder: Path, image: str, message: str):
    (folder / "link.png").symlink_to(folder.parent / "secret.png")
    (folder / "loop").symlink_to(folder / "loop")
    path = write(folder / "x.jsonl", [ROW, {**ROW, "image": image}])
    with pytest.raises(ValueError, match=f"(?s)x.jsonl, row 2: images: .*({message})"):
        load_problems(Source(format="plain", path=str(path)))
    absolute = str(folder.parent / "secret.png")
    write(path, [{**ROW, "image": absolute}])
    with pytest.raises(ValueError, match="lies outside the folder"):
        load_problems(Source(format="plain", path=str(path)))


def test_missing_and_strange_paths(tmp_path: Path):
    for path, message in [
        ("/nowhere/data", "/nowhere/data: no such file or folder"),
        ("data/train.jsonl", "no such file or folder"),
        (str(tmp_path), "holds no .jsonl or .parquet file"),
    ]:
        with pytest.raises(ValueError, match=message):
            check_source(Source(format="plain", path=path))
    (tmp_path / "x.csv").write_text("question,answer")
    with pytest.raises(ValueError, match=r"x.csv: expected a .jsonl or .parquet file"):
        load_problems(Source(format="plain", path=str(tmp_path / "x.csv")))
    (tmp_path / "x.parquet").write_bytes(b"PAR1 but no more")
    with pytest.raises(ValueError, match=r"x.parquet: not a readable parquet file"):
        check_source(Source(format="plain", path=str(tmp_path / "x.parquet")))


# --- the real thing


def test_real_data():
    root = os.environ.get("THINKING_RL_DATA")
    if not root:
        pytest.skip("THINKING_RL_DATA does not name the folder of real data sets")
    data = Path(root)
    train = load_problems(Source(format="mathvision", path=str(data / "mathvision")))
    mini = load_problems(Source(format="mathvision", path=str(data / "mathvision/testmini.jsonl")))
    assert (len(train), len(mini)) == (700, 304)
    assert not {problem.id for problem in train} & {problem.id for problem in mini}
    assert all(problem.images and "<image1>" in problem.question for problem in train)
    assert all(problem.level in range(1, 6) for problem in train)
    words = load_problems(Source(format="gsm8k", path=str(data / "gsm8k"), split="test"))
    assert len(words) == 1319
    assert all(float(problem.answer) == float(problem.answer) for problem in words)
    every = Source(format="mathvision", path=str(data / "mathvision/all_questions.jsonl"))
    assert len(load_problems(every, pictures=False)) == 3040
    vista = load_problems(
        Source(format="mathvista", path=str(data / "mathvista/recorded_bard.jsonl"))
    )
    assert len(vista) == 1000
    assert {problem.metadata["question_type"] for problem in vista} == {"multi_choice", "free_form"}
