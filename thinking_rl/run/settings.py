"""What engines and learner ranks have to know of a recipe."""

from __future__ import annotations

from rollouts.engine import EngineSettings
from rollouts.pool import Patience
from thinking_rl.cluster.devices import Cluster
from thinking_rl.learner.build import LearnerSettings
from thinking_rl.model.processing import KimiVLProcessor
from thinking_rl.recipe.optimizer import Optimizer
from thinking_rl.recipe.rl import Loss
from thinking_rl.recipe.schema import Recipe, Rollout

SILENCE_S = {False: 20.0, True: 300.0}
"""How long an engine may be silent where the recipe does not say: on GPUs, and on CPUs."""


def patience(rollout: Rollout, devices: Cluster) -> Patience:
    """How long engines are waited for."""
    silence_s = rollout.silence_s or SILENCE_S[devices.on_cpu]
    return Patience(rollout.start_timeout_s, silence_s, rollout.timeout_s)


def engine_settings(
    recipe: Recipe, devices: Cluster, checkpoint: str, processor: KimiVLProcessor
) -> EngineSettings:
    """The recipe's rollout section as an engine takes it."""
    ids = processor.tokenizer.special_token_ids
    rollout = recipe.rollout
    return EngineSettings(
        checkpoint=checkpoint,
        dtype=recipe.model.dtype,
        max_model_tokens=rollout.max_model_tokens,
        max_sequences=rollout.max_sequences,
        max_images=rollout.max_images,
        seed=recipe.seed,
        media_token_id=processor.media_token_id,
        stop_token_ids=(ids["<|im_end|>"], ids["[EOS]"]),
        image_token_limit=recipe.model.image_token_limit,
        tensor_parallel=rollout.tensor_parallel,
        gpu_memory_share=rollout.gpu_memory_share,
        kv_cache_gib=rollout.kv_cache_gib,
        threads=devices.threads,
        on_cpu=devices.on_cpu,
        sleeps=not devices.on_cpu and rollout.placement == "shared",
    )


def learner_settings(
    recipe: Recipe, devices: Cluster, checkpoint: str, optimizer: Optimizer
) -> LearnerSettings:
    """The recipe's learner section, a stage's optimizer, and RL's loss, as a rank takes them."""
    loss = recipe.rl.loss if recipe.rl else Loss()
    return LearnerSettings(
        checkpoint=checkpoint,
        learning_rate=optimizer.learning_rate,
        tau=recipe.rl.tau[0] if recipe.rl else 0.0,
        form=loss.form,
        normalisation=loss.normalisation,
        ratio_band=loss.ratio_band,
        temperature=recipe.rollout.temperature,
        optimizer=optimizer.kind,
        dtype=recipe.model.dtype,
        betas=optimizer.betas,
        weight_decay=optimizer.weight_decay,
        max_grad_norm=optimizer.max_grad_norm,
        reset_optimizer=recipe.rl.reset_optimizer if recipe.rl else True,
        freeze=tuple(recipe.model.freeze),
        activation_checkpointing=recipe.learner.activation_checkpointing,
        threads=recipe.learner.threads or devices.threads,
        timeout_s=recipe.learner.timeout_s,
        seed=recipe.seed,
    )
