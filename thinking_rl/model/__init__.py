"""Kimi-VL without remote code. Importing this package registers the configuration, model,
tokenizer, image processor and processor with transformers' Auto classes."""

from transformers import AutoConfig, AutoModel, AutoModelForCausalLM, AutoModelForImageTextToText

from thinking_rl.model.configuration import KimiVLConfig
from thinking_rl.model.modeling import KimiVLForConditionalGeneration
from thinking_rl.model.processing import register_processing

AutoConfig.register(KimiVLConfig.model_type, KimiVLConfig, exist_ok=True)
for auto in (AutoModel, AutoModelForCausalLM, AutoModelForImageTextToText):
    auto.register(KimiVLConfig, KimiVLForConditionalGeneration, exist_ok=True)
register_processing(KimiVLConfig)
