"""Memory of the pictures of 512 responses to 64 problems: `python -m benchmarks.pictures`.

One JSON line a figure. The baseline is what a training row holds where it carries its pictures
itself, in float32, as `PackedRow` does at the moment it is used.
"""

from __future__ import annotations

import argparse
import json
import pickle
import tempfile

from benchmarks.agreement import picture
from rollouts.prompts import Prompt, render_prompt
from thinking_rl.learner.packing import pack_row, split_by_tokens
from thinking_rl.model.image_store import ImageStore
from thinking_rl.model.processing import load_processor
from thinking_rl.model.tiny import write_tiny
from thinking_rl.types import Conversation, FinishReason, Group, Problem, Segment, Trajectory

PROBLEMS, SAMPLES, SIDE, RESPONSE = 64, 8, 448, 200
MIB = 2**20


def conversations_of(prompt: Prompt) -> list[Conversation]:
    """The responses to one problem, all alike."""
    segment = Segment(tuple(range(RESPONSE)), (0.0,) * RESPONSE, 0)
    hashes = tuple(image.hash for image in prompt.images)
    response = Trajectory(
        prompt.problem.id, prompt.token_ids, hashes, (segment,), "", FinishReason.STOP
    )
    group = Group(prompt.problem, (response,) * SAMPLES)
    return [group.conversation(index) for index in range(SAMPLES)]


def figures(tokens_per_row: int) -> dict[str, tuple[float, float, str]]:
    """Name -> value, baseline, unit."""
    with tempfile.TemporaryDirectory() as folder:
        processor = load_processor(write_tiny(folder))
    store = ImageStore(processor.image_processor)
    problems = [
        Problem(str(n), "How many?", "3", images=(picture(SIDE, SIDE, n),)) for n in range(PROBLEMS)
    ]
    prompts = [render_prompt(processor, store, problem) for problem in problems]
    conversations = [one for prompt in prompts for one in conversations_of(prompt)]
    lengths = [len(one.token_ids) for one in conversations]
    rows = [
        pack_row([conversations[i] for i in chosen])
        for chosen in split_by_tokens(lengths, tokens_per_row)
    ]
    held = store.shared({key for row in rows for key in row.image_hashes})
    copies = [held[key] for row in rows for key in row.image_hashes]
    kept = sum(patches.pixels.nbytes for patches in held.values()) / MIB
    carried = sum(patches.pixel_values.nbytes for patches in copies) / MIB
    return {
        "pictures/decoded": (store.decoded, PROBLEMS, "pictures"),
        "pictures/sets": (len(held), len(copies), "sets of patches"),
        "pictures/memory": (kept, carried, "MiB"),
        "pictures/rows_sent": (len(pickle.dumps(rows)) / MIB, carried, "MiB"),
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--tokens-per-row", type=int, default=512, help="512: a response each")
    tokens = parser.parse_args().tokens_per_row
    for name, (value, baseline, unit) in figures(tokens).items():
        line = {
            "name": name,
            "value": round(value, 1),
            "unit": unit,
            "baseline": round(baseline, 1),
        }
        print(json.dumps(line | {"ratio": round(baseline / value, 2), "n": PROBLEMS * SAMPLES}))


if __name__ == "__main__":
    main()
