import subprocess
import sys

FRESH_PROCESS = """
import json, sys, torch
import thinking_rl.model
from PIL import Image
from transformers import AutoModelForCausalLM, AutoModelForImageTextToText, AutoProcessor, pipeline
from thinking_rl.model.configuration import KimiVLConfig
from thinking_rl.model.modeling import KimiVLForConditionalGeneration
from thinking_rl.model.weights import CheckpointReader, load_released

folder, saved = sys.argv[1:]
ours = KimiVLForConditionalGeneration(KimiVLConfig.from_pretrained(folder))
load_released(ours, folder)
for auto in (AutoModelForImageTextToText, AutoModelForCausalLM):
    for dtype in (torch.float32, torch.bfloat16):
        model, said = auto.from_pretrained(folder, dtype=dtype, output_loading_info=True)
        assert not any(said.values()), said
        state = model.state_dict()
        assert state.keys() == ours.state_dict().keys()
        for name, expected in ours.state_dict().items():
            bias = name.endswith("correction_bias")
            assert state[name].dtype == (torch.float32 if bias else dtype), name
            assert torch.equal(state[name], expected.to(state[name].dtype)), name
            assert not bias or state[name].abs().min() > 0
        frequencies = model.language_model.model.rotary_emb.inv_freq
        assert frequencies.dtype == torch.float32
        torch.testing.assert_close(frequencies, 10000.0 ** (-torch.arange(0, 64, 2) / 64))

model.save_pretrained(saved)
again = AutoModelForImageTextToText.from_pretrained(saved, dtype=torch.bfloat16)
for name, tensor in again.state_dict().items():
    assert torch.equal(tensor, state[name]), name
released, written = CheckpointReader(folder), CheckpointReader(saved)
assert released.names() == written.names()
load_released(KimiVLForConditionalGeneration(KimiVLConfig.from_pretrained(saved)), saved)
for name in written.names():
    tensor = written.read(name)
    assert torch.equal(tensor, released.read(name).to(tensor.dtype)), name

processor = AutoProcessor.from_pretrained(folder)
model = AutoModelForImageTextToText.from_pretrained(folder)
blue, red = Image.new("RGB", (60, 90), "blue"), Image.new("RGB", (28, 28), "red")
asked = [
    [{"type": "image", "image": blue}, {"type": "text", "text": "What is it?"}],
    [{"type": "text", "text": "1 + 1 ="}],
]
prompts = [
    processor.apply_chat_template(
        [{"role": "user", "content": content}], add_generation_prompt=True, tokenize=False
    )
    for content in asked
]
options = dict(max_new_tokens=12, min_new_tokens=12, do_sample=False)
inputs = processor(text=[prompts[0]], images=[blue], return_tensors="pt")
cached = model.generate(**inputs, **options)
assert torch.equal(cached, model.generate(**inputs, **options, use_cache=False))
new = cached[0, inputs["input_ids"].shape[1]:]
assert len(new) == 12
other = processor(text=[prompts[0]], images=[red.resize((60, 90))], return_tensors="pt")
assert not torch.equal(model(**inputs).logits[:, -1], model(**other).logits[:, -1])

# One batch with padding on the left, answers as alone.
text_only = processor(text=[prompts[1]], return_tensors="pt")
alone = model.generate(**text_only, **options)[0, text_only["input_ids"].shape[1]:]
long, short = inputs["input_ids"][0], text_only["input_ids"][0]
padding = len(long) - len(short)
assert padding > 0
ids = torch.stack([long, torch.cat([torch.full((padding,), model.config.pad_token_id), short])])
mask = torch.ones_like(ids)
mask[1, :padding] = 0
batch = dict(inputs) | {"input_ids": ids, "attention_mask": mask}
together = model.generate(**batch, **options)
assert torch.equal(together[0, len(long):], new)
assert torch.equal(together[1, len(long):], alone)

# The usual calls: messages with pictures, a batch with unlike numbers of them, the pipeline.
def message(*pictures):
    parts = [{"type": "image", "image": picture} for picture in pictures]
    return [{"role": "user", "content": [*parts, {"type": "text", "text": "What is it?"}]}]

def answers(messages, **padding):
    inputs = processor.apply_chat_template(
        messages, add_generation_prompt=True, tokenize=True, return_dict=True,
        return_tensors="pt", processor_kwargs=padding,
    )
    tokens = model.generate(**inputs, **options)[:, inputs["input_ids"].shape[1]:]
    return processor.batch_decode(tokens, skip_special_tokens=True)

asked = [message(blue, red), message(red), message()]
alone = [answers(one)[0] for one in asked]
assert len(set(alone)) >= 2
assert answers(message(blue)) == processor.batch_decode([new], skip_special_tokens=True)
assert answers(asked, padding=True) == alone
texts = [processor.apply_chat_template(one, tokenize=False) for one in asked]
nested = processor(images=[[blue, red], [red], []], text=texts, padding=True, return_tensors="pt")
in_a_row = processor(images=[blue, red, red], text=texts, padding=True, return_tensors="pt")
assert nested.keys() == in_a_row.keys()
assert all(torch.equal(nested[name], in_a_row[name]) for name in nested)
ask = pipeline("image-text-to-text", model=model, processor=processor)
said = ask(text=asked[:2], batch_size=2, generate_kwargs=options, return_full_text=False)
assert [one[0]["generated_text"] for one in said] == alone[:2]
print("done")
"""


def test_transformers_loads_generates_and_saves_in_a_fresh_process(tiny_checkpoint, tmp_path):
    ended = subprocess.run(
        [sys.executable, "-c", FRESH_PROCESS, tiny_checkpoint, tmp_path / "saved"],
        capture_output=True,
        text=True,
        timeout=600,
    )
    assert ended.stdout.strip().endswith("done"), ended.stderr[-3000:]
