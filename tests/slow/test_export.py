"""The exported checkpoint, read in fresh processes by vLLM and by transformers."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

from short_run import ROOT, ShortRun

TOKENS = 24

READ = """
import json, sys
from dataclasses import replace
from benchmarks.agreement import engine_settings
from rollouts.prompts import Sampling, render_prompt
from thinking_rl.data import fixed_problems
from thinking_rl.model.image_store import ImageStore
from thinking_rl.model.images import open_image
from thinking_rl.model.processing import load_processor
from thinking_rl.recipe.schema import Source

reader, folder, tokens = sys.argv[1], sys.argv[2], int(sys.argv[3])
processor = load_processor(folder)
source = Source(format="procedural", families=["arithmetic", "counting"], levels=[1, 2, 3])
images = ImageStore(processor.image_processor)
problems = fixed_problems([source], 5, seed=1)
prompts = [render_prompt(processor, images, problem) for problem in problems]
assert all(prompt.images for prompt in prompts)
if reader == "vllm":
    from rollouts.engine import Engine
    engine = Engine(engine_settings(folder, max_model_tokens=512, image_token_limit=None))
    greedy = Sampling(samples=1, max_response_tokens=tokens, temperature=0.0)
    patches = images.shared([image.hash for prompt in prompts for image in prompt.images])
    answers = engine.generate([prompt.request(greedy) for prompt in prompts], patches)
    ids = [answer.token_ids for answer in answers]
else:
    import torch
    import thinking_rl.model
    from transformers import AutoConfig, AutoProcessor
    from thinking_rl.model.modeling import KimiVLForConditionalGeneration
    model = KimiVLForConditionalGeneration.from_pretrained(folder, dtype=torch.float32).eval()
    auto = AutoProcessor.from_pretrained(folder)
    ids = []
    for prompt in prompts:
        parts = [{"type": "image"}, {"type": "text", "text": prompt.problem.question}]
        text = auto.apply_chat_template(
            [{"role": "user", "content": parts}], add_generation_prompt=True, tokenize=False
        )
        pictures = [open_image(one) for one in prompt.problem.images]
        batch = auto(images=pictures, text=text, return_tensors="pt")
        assert batch["input_ids"][0].tolist() == list(prompt.token_ids)
        out = model.generate(**batch, do_sample=False, max_new_tokens=tokens)
        ids.append(out[0, len(prompt.token_ids):].tolist())
print(json.dumps([processor.tokenizer.decode(list(row)) for row in ids]))
"""


def read(reader: str, folder: Path) -> list[str]:
    """The greedy answers to five image prompts, by a process that knows the export alone."""
    done = subprocess.run(
        [sys.executable, "-c", READ, reader, str(folder), str(TOKENS)],
        cwd=ROOT,
        env=os.environ | {"HF_HUB_OFFLINE": "1"},
        capture_output=True,
        text=True,
        timeout=500,
        check=False,
    )
    assert done.returncode == 0, done.stderr[-3000:]
    return json.loads(done.stdout.splitlines()[-1])


def test_vllm_and_transformers_read_the_same_model(
    finished_run: ShortRun, sharp_checkpoint: Path, tmp_path: Path
) -> None:
    """With weights that answer every prompt otherwise, as those of a short run may not."""
    export = shutil.copytree(finished_run.run_dir / "export", tmp_path / "export")
    for file in (
        "model.safetensors.index.json",
        *(one.name for one in export.glob("*.safetensors")),
    ):
        shutil.copy(sharp_checkpoint / file, export)
    theirs, ours = read("vllm", export), read("transformers", export)
    assert len(theirs) == 5
    assert theirs == ours
    assert len(set(theirs)) > 1


def test_the_export_is_complete(finished_run: ShortRun) -> None:
    export = finished_run.run_dir / "export"
    names = {path.name for path in export.iterdir()}
    start = {path.name for path in (finished_run.run_dir / "tiny").iterdir()}
    assert start | {"README.md"} <= names
    index = json.loads((export / "model.safetensors.index.json").read_text())
    assert set(index["weight_map"].values()) <= names
    assert not [path for path in export.rglob("*") if path.is_symlink()]
    generation = json.loads((export / "generation_config.json").read_text())
    assert len(generation["eos_token_id"]) == 2
    assert len(generation["suppress_tokens"]) == 1
    card = (export / "README.md").read_text()
    assert "After RL " in card
    assert "samples_per_problem: 4" in card
