import io
import socket
from dataclasses import replace
from itertools import chain
from pathlib import Path
from types import SimpleNamespace

import pytest
import ranks
import torch
from PIL import Image
from steps import NATS, OF_NORM, apart

from thinking_rl import sft_rank
from thinking_rl.data import Example
from thinking_rl.learner.build import LearnerSettings
from thinking_rl.model.configuration import KimiVLConfig
from thinking_rl.model.image_store import ImageStore
from thinking_rl.model.modeling import KimiVLForConditionalGeneration
from thinking_rl.model.processing import load_processor
from thinking_rl.model.weights import CheckpointReader, load_released
from thinking_rl.recipe.schema import SFT
from thinking_rl.sft_rank import PackingCollator, SFTActor, SFTJob, conversation
from thinking_rl.types import Problem

RATE = 1e-3
INSTRUCTION = "Answer with a number."
APART = 0.01 * RATE
"""For weights after three steps. A lost rank makes 2 steps, a lost picture 0.7, a division by the
rank's own count 0.6, a rate that is a twentieth off 0.5."""
LONG = 4
"""Number of the example that is too long."""


def png(colour, size):
    stream = io.BytesIO()
    Image.new("RGB", size, colour).save(stream, "PNG")
    return stream.getvalue()


def examples(count=12):
    """Every fourth with a picture; one much longer than the others."""
    made = []
    for n in range(count):
        images = (png((20 * n, 90, 0), (60 + 14 * n, 40)),) if n % 4 == 1 else ()
        response = f"◁think▷{n} and {n} is {2 * n}◁/think▷ {2 * n}" + " and so on" * (n % 3)
        if n == LONG:
            response += " and so on" * 200
        made.append(Example(Problem(f"p{n}", f"What is {n} + {n}?", str(2 * n), images), response))
    return made


def job(checkpoint, out, batch=4, **sft):
    optimizer = {"learning_rate": RATE, "max_grad_norm": 1.0}
    given = {
        "steps": 3,
        "batch_size": batch,
        "max_conversation_tokens": 400,
        "optimizer": optimizer,
    } | sft
    section = SFT.model_validate({"data": [{"format": "plain", "path": "none"}]} | given)
    settings = LearnerSettings(str(checkpoint), learning_rate=RATE, tau=0.0, timeout_s=60)
    return SFTJob(
        settings=settings,
        sft=section,
        examples=examples(),
        instruction=INSTRUCTION,
        image_token_limit=None,
        image_store_gib=1.0,
        out=str(out),
        run_dir=str(Path(out).parent),
    )


WITHOUT_RAY = SimpleNamespace(get=list)
"""In place of ray: what it refers to is given as it is."""


@pytest.fixture(autouse=True)
def _without_ray(monkeypatch):
    monkeypatch.setattr(sft_rank, "ray", WITHOUT_RAY)


@pytest.fixture(scope="module")
def processor(tiny_checkpoint):
    return load_processor(tiny_checkpoint)


def test_labels_are_on_the_assistants_tokens_and_its_turn_end(processor, tiny_checkpoint):
    collate = PackingCollator(processor, job(tiny_checkpoint, "out"))
    batch = collate([{"example": 1}, {"example": 2}])
    row, labels = batch["row"], batch["labels"][0]
    tokenizer, given = processor.tokenizer, examples()
    images = ImageStore(processor.image_processor)
    expected_ids, expected_labels = [], []
    for example in given[1:3]:
        one = conversation(processor, images, example, INSTRUCTION)
        expected_ids += one.token_ids
        own = [*tokenizer.text_ids(example.response), tokenizer.special_token_ids["<|im_end|>"]]
        assert list(one.token_ids[-len(own) :]) == own
        expected_labels += [-100] * (len(one.token_ids) - len(own)) + own
    assert row.input_ids.tolist() == expected_ids
    assert labels.tolist() == expected_labels
    assert row.positions.tolist() == [n for n, label in enumerate(expected_labels) if label >= 0]
    assert sum(row.lengths) == len(row.input_ids)
    [(h, w)] = row.grids
    assert (row.input_ids == processor.media_token_id).sum() == h * w // 4
    assert len(row.pixel_values) == h * w
    assert collate.dropped == 0


def test_too_long_conversations_are_dropped_and_counted(processor, tiny_checkpoint):
    collate = PackingCollator(processor, job(tiny_checkpoint, "out"))
    batch = collate([{"example": LONG}, {"example": 2}])
    assert batch["row"].input_ids.equal(collate([{"example": 2}])["row"].input_ids)
    assert collate.dropped == 1
    nothing = collate([{"example": LONG}])
    assert (nothing["labels"] == -100).all()
    assert collate.dropped == 2


def test_pictures_that_were_cut_are_not_decoded_again(processor, tiny_checkpoint):
    given, rows = job(tiny_checkpoint, "out"), [{"example": 1}, {"example": 5}]
    plain = PackingCollator(processor, given)
    expected = plain(rows)["row"]
    images = ImageStore(processor.image_processor)
    cut = images.shared([images.add(given.examples[1].problem.images[0]).hash])
    collate = PackingCollator(processor, replace(given, cut=cut))
    for _ in range(2):
        row = collate(rows)["row"]
        assert row.grids == expected.grids
        assert torch.equal(row.pixel_values, expected.pixel_values)
    assert (collate.images.decoded, plain.images.decoded) == (1, 2)


def loss_by_hand(processor, checkpoint, numbers):
    """Mean over the labelled tokens, each conversation alone, through the model's logits."""
    model = KimiVLForConditionalGeneration(KimiVLConfig.from_pretrained(checkpoint))
    load_released(model, checkpoint)
    images = ImageStore(processor.image_processor)
    total, count = 0.0, 0
    for number in numbers:
        one = conversation(processor, images, examples()[number], INSTRUCTION)
        if len(one.token_ids) > 400:
            continue
        ids = torch.tensor(one.token_ids)
        pictures = {}
        if one.image_hashes:
            cut = images.shared(one.image_hashes).values()
            pictures["pixel_values"] = torch.cat([p.pixel_values for p in cut])
            pictures["image_grid_hws"] = [p.grid_hw for p in cut]
        with torch.no_grad():
            table = model(ids[None], **pictures).logits[0].log_softmax(-1)
        own = torch.tensor(one.loss_mask).nonzero().flatten()
        total -= table[own - 1, ids[own]].double().sum().item()
        count += len(own)
    return total / count


def test_packed_loss_equals_unpacked(processor, tiny_checkpoint):
    model = KimiVLForConditionalGeneration(KimiVLConfig.from_pretrained(tiny_checkpoint))
    load_released(model, tiny_checkpoint)
    batch = PackingCollator(processor, job(tiny_checkpoint, "out"))(
        [{"example": n} for n in (5, 0, 1, 7)]
    )
    expected = loss_by_hand(processor, tiny_checkpoint, (5, 0, 1, 7))
    assert model(**batch).loss.item() == pytest.approx(expected, abs=NATS)
    halved = model(**batch, num_items_in_batch=2 * (batch["labels"] != -100).sum()).loss
    assert halved.item() == pytest.approx(expected / 2, abs=NATS)


def train(rank, world_size, given, rendezvous):
    """Train as an actor does; the counts, the progress and the examples seen in each batch."""
    sft_rank.ray = WITHOUT_RAY
    seen = []
    collate = PackingCollator.__call__

    def noted(self, rows):
        seen.append([row["example"] for row in rows])
        return collate(self, rows)

    PackingCollator.__call__ = noted
    actor = SFTActor(rank, world_size)
    try:
        counts = actor.train(given, rendezvous)
    except (ValueError, FloatingPointError) as error:
        return repr(error), actor.progress(), seen
    return counts, actor.progress(), seen


def address():
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return f"tcp://127.0.0.1:{probe.getsockname()[1]}"


@pytest.fixture(scope="module")
def runs(tiny_checkpoint, tmp_path_factory):
    """Three steps with one process and with two; the latter also in smaller passes."""
    folder = tmp_path_factory.mktemp("sft")
    kinds = {"one": (1, {}), "two": (2, {}), "accumulated": (2, {"micro_batch_size": 1})}
    return {
        name: (
            folder / name / "weights",
            ranks.run(
                train, size, job(tiny_checkpoint, folder / name / "weights", **options), address()
            ),
        )
        for name, (size, options) in kinds.items()
    }


def test_one_process_trains(runs, processor, tiny_checkpoint):
    out, [(counts, rows, seen)] = runs["one"]
    assert counts == {"examples": 12, "dropped": 1, "images_decoded": 3, "images_distinct": 3}
    assert sorted(chain(*seen)) == list(range(12))
    assert [row["step"] for row in rows] == [0, 1, 2]
    expected = loss_by_hand(processor, tiny_checkpoint, seen[0])
    assert rows[0]["loss"] == pytest.approx(expected, abs=NATS)
    assert rows[2]["loss"] < rows[0]["loss"]
    assert rows[0]["learning_rate"] == RATE
    assert all(row["grad_norm"] > 0 for row in rows)
    before, after = CheckpointReader(tiny_checkpoint), CheckpointReader(out)
    assert before.names() == after.names()
    for name in after.names():
        if ".experts." not in name:  # some may have had no token
            same = torch.equal(before.read(name), after.read(name))
            assert same == name.endswith("correction_bias"), name


def weights(folder):
    reader = CheckpointReader(folder)
    return {name: reader.read(name) for name in reader.names()}


@pytest.mark.parametrize("kind", ["two", "accumulated"])
def test_two_processes_equal_one(runs, kind):
    out, answers = runs[kind]
    _, [(_, expected, together)] = runs["one"]
    for counts, rows, seen in answers:
        pictured = sum(number % 4 == 1 for number in chain(*seen))
        assert counts == {
            "examples": 12,
            "dropped": 1,
            "images_decoded": pictured,
            "images_distinct": pictured,
        }
        for row, other in zip(rows, expected, strict=True):
            assert row["loss"] == pytest.approx(other["loss"], abs=NATS)
            assert row["grad_norm"] == pytest.approx(other["grad_norm"], rel=OF_NORM)
    first, second = ([*chain(*seen)] for _, _, seen in answers)
    assert not set(first) & set(second)
    assert sorted(first + second) == list(range(12))
    assert sorted(first[:2] + second[:2]) == sorted(together[0])
    difference, name = apart(weights(out), weights(runs["one"][0]))
    assert difference < APART, name


def test_the_stage_goes_on_where_it_was_saved(runs, tiny_checkpoint, tmp_path):
    """Two ranks go on from what one saved after its first step, and the other way round."""
    whole, [(_, expected, together)] = runs["one"]
    for saved_by, goes_on in ((1, 1), (1, 2), (2, 1)):
        given = job(tiny_checkpoint, tmp_path / f"{saved_by}{goes_on}" / "weights")
        given = replace(given, sft=given.sft.model_copy(update={"checkpoint_every": 1}))
        before = ranks.run(train, saved_by, given, address())
        marks = [row["saved"] for row in before[0][1] if "saved" in row]
        assert marks == [1, 2]
        answers = ranks.run(train, goes_on, replace(given, done=1), address())
        rows = [row for row in answers[0][1] if "saved" not in row]
        assert [row["step"] for row in rows] == [1, 2]
        for row, other in zip(rows, expected[1:], strict=True):
            assert row["loss"] == pytest.approx(other["loss"], abs=NATS)
            assert row["grad_norm"] == pytest.approx(other["grad_norm"], rel=OF_NORM)
            assert row["learning_rate"] == other["learning_rate"]
        seen = [chain(*batches) for _, _, batches in answers]
        assert sorted(chain(*seen)) == sorted(chain(*together[1:]))
        difference, name = apart(weights(given.out), weights(whole))
        assert difference < (APART if saved_by * goes_on > 1 else 1e-12), name


def test_nothing_short_enough_is_an_error(tiny_checkpoint, tmp_path):
    given = job(tiny_checkpoint, tmp_path / "out" / "weights", steps=2, batch=2)
    given = replace(given, examples=[examples()[LONG]] * 4)
    [(said, _, _)] = ranks.run(train, 1, given, address())
    assert "ValueError" in said
    assert "sft.max_conversation_tokens (400)" in said
    assert not (tmp_path / "out" / "weights").exists()


def not_finite(rank, world_size, given, rendezvous):
    build = sft_rank.build_model

    def spoilt(*arguments):
        model = build(*arguments)
        with torch.no_grad():
            model.language_model.lm_head.weight.mul_(float("inf"))
        return model

    sft_rank.build_model = spoilt
    return train(rank, world_size, given, rendezvous)


def test_a_gradient_that_is_not_finite_stops_training(tiny_checkpoint, tmp_path):
    given = job(tiny_checkpoint, tmp_path / "out" / "weights")
    [(said, rows, _)] = ranks.run(not_finite, 1, given, address())
    assert "FloatingPointError" in said
    assert "not taken" in said
    assert rows == []
