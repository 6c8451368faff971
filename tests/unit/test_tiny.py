import json
import sys

import torch
from transformers import AutoConfig, AutoTokenizer, GenerationConfig

from thinking_rl.model import tiny
from thinking_rl.model.processing import load_processor
from thinking_rl.model.weights import CheckpointReader


def contents(folder):
    return {file.name: file.read_bytes() for file in folder.iterdir()}


def test_the_seed_fixes_every_byte(tiny_checkpoint, tmp_path):
    torch.manual_seed(5)
    expected = torch.rand(1)
    torch.manual_seed(5)
    again = contents(tiny.write_tiny(tmp_path / "again", seed=0))
    assert torch.rand(1).equal(expected)  # the global generator is left alone
    assert again == contents(tiny_checkpoint)
    other = contents(tiny.write_tiny(tmp_path / "other", seed=1))
    assert {name for name in other if other[name] != again[name]} == {
        "model-00001-of-00001.safetensors"
    }


def test_it_is_complete_and_fits_together(tiny_checkpoint):
    config = AutoConfig.from_pretrained(tiny_checkpoint)
    tokenizer = AutoTokenizer.from_pretrained(tiny_checkpoint)
    processor = load_processor(tiny_checkpoint)
    ids = tokenizer.special_token_ids
    assert config.media_placeholder_token_id == ids["<|media_pad|>"] == processor.media_token_id
    assert config.text_config.vocab_size == len(tokenizer)
    generation = GenerationConfig.from_pretrained(tiny_checkpoint)
    assert generation.eos_token_id == [ids["<|im_end|>"], ids["[EOS]"]]
    assert generation.suppress_tokens == [ids["<|media_pad|>"]]
    written = json.loads((tiny_checkpoint / "config.json").read_text())
    assert written["text_config"]["rope_scaling"] is None
    reader = CheckpointReader(tiny_checkpoint)
    tensors = {name: reader.read(name) for name in reader.names()}
    assert 2e6 < sum(tensor.numel() for tensor in tensors.values()) < 4e6
    assert all(tensor.isfinite().all() for tensor in tensors.values())
    biases = [tensor for name, tensor in tensors.items() if name.endswith("correction_bias")]
    assert len(biases) == 2
    assert all(bias.abs().min() > 0 for bias in biases)


def test_command_line(tmp_path, monkeypatch, capsys):
    arguments = ["tiny", str(tmp_path / "out"), "--seed", "3", "--image-token-limit", "64"]
    monkeypatch.setattr(sys, "argv", arguments)
    tiny.main()
    assert str(tmp_path / "out") in capsys.readouterr().out
    limits = json.loads((tmp_path / "out" / "preprocessor_config.json").read_text())
    assert limits["in_token_limit"] == 64
    reader = CheckpointReader(tmp_path / "out")
    assert "language_model.lm_head.weight" in reader.names()
