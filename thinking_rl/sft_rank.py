"""One rank of the warm-up: supervised fine-tuning with TRL's SFTTrainer.

Text and pictures are packed by our own collator; the loss is on the assistant's tokens alone.
The model is sharded by FSDP2 before the trainer sees it, with the learner's own plan.
"""

from __future__ import annotations

import gc
import os
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import ray
import torch
import torch.distributed as dist
from datasets import Dataset
from torch.optim.lr_scheduler import LambdaLR
from transformers import TrainerCallback
from trl.trainer.sft_config import SFTConfig
from trl.trainer.sft_trainer import SFTTrainer

from thinking_rl.cluster.logs import speak_into_log
from thinking_rl.data import Example
from thinking_rl.files.run_folder import RunFolder
from thinking_rl.learner.build import LearnerSettings, build_model, join
from thinking_rl.learner.group import free_address
from thinking_rl.learner.packing import pack_row
from thinking_rl.learner.rank import clip_gradients
from thinking_rl.learner.sharded_state import load_state, save_state
from thinking_rl.model.image_store import ImageStore
from thinking_rl.model.images import ImagePatches
from thinking_rl.model.processing import KimiVLProcessor, conversation_messages, load_processor
from thinking_rl.model.weights import full_tensors, save_released
from thinking_rl.recipe.schema import SFT
from thinking_rl.types import Conversation


@dataclass(frozen=True)
class SFTJob:
    """What one rank needs to train."""

    settings: LearnerSettings
    """Of its process and its model."""
    sft: SFT
    """The recipe's section."""
    examples: Sequence[Example]
    """The same on every rank, one for each place in each batch."""
    instruction: str
    """Appended to every question."""
    image_token_limit: int | None
    """Most patches an image may have; None: the checkpoint's."""
    image_store_gib: float
    """Memory for pictures that are cut."""
    out: str
    """Folder for the trained weights."""
    run_dir: str
    """The run's folder, for what the stage goes on from."""
    cut: Mapping[str, ray.ObjectRef[ImagePatches]] = field(default_factory=dict)
    """Pictures that were cut when the data was looked at, by hash."""
    done: int = 0
    """Steps that were made before, where the stage goes on."""

    def checkpoint(self, step: int) -> Path:
        """Folder of what the stage goes on from after so many steps."""
        return RunFolder(Path(self.run_dir)).sft_checkpoint(step)


def conversation(
    processor: KimiVLProcessor, images: ImageStore, example: Example, instruction: str = ""
) -> Conversation:
    """An example as token ids, with the assistant's tokens in the loss; its pictures go into the
    store."""
    messages = conversation_messages(example.problem, example.response, instruction, images.add)
    rendered = processor.render(messages, add_generation_prompt=False)
    return Conversation(
        tuple(rendered.token_ids),
        tuple(bool(own) for own in rendered.assistant_mask),
        tuple(image.hash for image in rendered.images),
    )


class PackingCollator:
    """Rows of example numbers to one packed row of tokens, as `forward` takes it."""

    def __init__(self, processor: KimiVLProcessor, job: SFTJob):
        self.processor = processor
        self.job = job
        self.images = ImageStore(processor.image_processor, job.image_store_gib)
        if job.cut:
            self.images.take(dict(zip(job.cut, ray.get(list(job.cut.values())), strict=True)))
        self.dropped = 0
        """Conversations longer than `sft.max_conversation_tokens`, left out."""

    def __call__(self, rows: Sequence[dict[str, int]]) -> dict[str, Any]:
        conversations = []
        for row in rows:
            example = self.job.examples[row["example"]]
            one = conversation(self.processor, self.images, example, self.job.instruction)
            if len(one.token_ids) <= self.job.sft.max_conversation_tokens:
                conversations.append(one)
            else:
                self.dropped += 1
        row = pack_row(conversations)
        labels = torch.full_like(row.input_ids, -100)
        labels[row.positions] = row.input_ids[row.positions]
        packed = row.packed(self.images.shared(row.image_hashes), "cpu")
        return {"row": packed, "labels": labels[None]}  # the trainer counts labels


class PackedSFTTrainer(SFTTrainer):
    """SFTTrainer on packed rows: the model computes the loss without building the logits. Where the
    stage goes on, it makes the steps that are left, as if it had made the others too."""

    job: SFTJob

    def get_train_dataloader(self):
        """All batches that were not trained on yet."""
        batches = self.job.done * self.args.gradient_accumulation_steps
        return self.accelerator.skip_first_batches(super().get_train_dataloader(), batches)

    def create_optimizer(self, model=None):
        optimizer = super().create_optimizer(model)
        if self.job.done:
            assert self.model is not None
            load_state(self.job.checkpoint(self.job.done), self.model, [optimizer])
        return optimizer

    def create_scheduler(self, num_training_steps, optimizer=None):
        """The recipe's own course, a function of the step alone."""
        sft, optimizer = self.job.sft, optimizer or self.optimizer
        assert isinstance(optimizer, torch.optim.Optimizer)

        def share(step: int) -> float:
            return sft.optimizer.rate(self.job.done + step, sft.steps) / sft.optimizer.learning_rate

        self.lr_scheduler = LambdaLR(optimizer, share)
        return self.lr_scheduler

    def compute_loss(self, model, inputs, return_outputs=False, num_items_in_batch=None):
        assert num_items_in_batch is not None
        # All of a step's conversations may have been too long.
        outputs = model(**inputs, num_items_in_batch=num_items_in_batch.clamp(min=1))
        # Gradients are averaged over ranks, the count is over all of them.
        loss = outputs.loss * self.accelerator.num_processes
        return (loss, outputs) if return_outputs else loss

    def _clip_grad_norm(self, model):
        """The learner's own clipping, which refuses a step that is not finite."""
        return clip_gradients(model, self.args.max_grad_norm)


class _Progress(TrainerCallback):
    """Rows of metrics, for whoever asks while training runs; saves what the stage goes on from, and
    has a row `saved` for it."""

    def __init__(self, job: SFTJob) -> None:
        self.job = job
        self.rows: list[dict[str, float]] = []
        self._last = 0.0

    def on_train_begin(self, args, state, control, **kwargs):
        self._last = time.monotonic()

    def on_log(self, args, state, control, logs=None, **kwargs):
        if not logs or "loss" not in logs:
            return
        kept = {k: float(logs[k]) for k in ("loss", "grad_norm", "learning_rate") if k in logs}
        kept["seconds"] = time.monotonic() - self._last
        step, sft = self.job.done + state.global_step, self.job.sft
        self.rows.append({"step": step - 1, **kept})
        if sft.checkpoint_every and step % sft.checkpoint_every == 0 and step < sft.steps:
            save_state(self.job.checkpoint(step), kwargs["model"], [kwargs["optimizer"].optimizer])
            self.rows.append({"saved": step})
        self._last = time.monotonic()


class SFTActor:
    """One rank of the warm-up, in a process of its own. `train` and `progress` run side by side."""

    def __init__(self, rank: int, world_size: int):
        speak_into_log("warm-up rank")
        self.rank, self.world_size = rank, world_size
        self._callback: _Progress | None = None

    def address(self) -> str:
        return free_address()

    def progress(self) -> list[dict[str, float]]:
        """All rows of metrics so far."""
        return list(self._callback.rows) if self._callback else []

    def train(self, job: SFTJob, rendezvous: str) -> dict[str, int]:
        """Train and write the weights to `job.out`; returns counts.

        Raises:
            ValueError: an example's picture cannot be used, or every conversation is too long.
        """
        try:
            return self._train(job, rendezvous)
        finally:  # what stays until the process has ended is memory that engines wait for
            if dist.is_initialized():
                dist.destroy_process_group()
            gc.collect()
            if torch.cuda.is_available():
                torch.cuda.empty_cache()

    def _train(self, job: SFTJob, rendezvous: str) -> dict[str, int]:
        os.environ.update(_launcher_environment(self.rank, self.world_size, rendezvous))
        device = join(job.settings, self.rank, self.world_size, rendezvous)
        processor = load_processor(job.settings.checkpoint, job.image_token_limit)
        collator = PackingCollator(processor, job)
        model = build_model(job.settings, self.world_size, device)
        # Sharded already: the trainer is to use the model as it is.
        model._is_accelerate_prepared = True  # pyright: ignore[reportArgumentType]
        self._callback = _Progress(job)
        trainer = PackedSFTTrainer(
            model=model,
            args=self._arguments(job),
            train_dataset=Dataset.from_dict({"example": list(range(len(job.examples)))}),
            data_collator=collator,
            processing_class=processor,
            callbacks=[self._callback],
        )
        trainer.job = job
        trainer.train()
        dropped = torch.tensor(collator.dropped, device=device)
        dist.all_reduce(dropped)
        if dropped >= len(job.examples):
            longest = job.sft.max_conversation_tokens
            raise ValueError(
                f"all conversations are longer than sft.max_conversation_tokens ({longest}); "
                "raise it"
            )
        weights = full_tensors(model, getattr(torch, job.settings.dtype))
        if self.rank == 0:
            save_released(weights, job.out)
        else:
            for _ in weights:
                pass
        images = collator.images
        return {
            "examples": len(job.examples),
            "dropped": int(dropped),
            "images_decoded": images.decoded,
            "images_distinct": images.distinct,
        }

    def _arguments(self, job: SFTJob) -> SFTConfig:
        sft, optimizer = job.sft, job.sft.optimizer
        at_once = sft.conversations_per_pass(self.world_size)
        cuda = torch.cuda.is_available()
        return SFTConfig(
            output_dir=str(Path(job.out).parent / "trainer"),
            max_steps=sft.steps - job.done,
            per_device_train_batch_size=at_once,
            gradient_accumulation_steps=sft.batch_size // (at_once * self.world_size),
            learning_rate=optimizer.learning_rate,
            adam_beta1=optimizer.betas[0],
            adam_beta2=optimizer.betas[1],
            weight_decay=optimizer.weight_decay,
            max_grad_norm=optimizer.max_grad_norm,
            seed=job.settings.seed,
            logging_steps=1,
            save_strategy="no",
            report_to="none",
            use_cpu=not cuda,
            bf16=False,  # the sharding plan casts, and keeps the router and rotary in float32
            gradient_checkpointing=job.settings.activation_checkpointing,
            remove_unused_columns=False,
            dataset_kwargs={"skip_prepare_dataset": True},
            max_length=None,
            dataloader_pin_memory=cuda,
            disable_tqdm=True,
        )


def _launcher_environment(rank: int, world_size: int, rendezvous: str) -> dict[str, str]:
    """What torchrun would set; accelerate reads it."""
    if world_size == 1:
        return {}
    host, port = rendezvous.removeprefix("tcp://").rsplit(":", 1)
    return {
        "RANK": str(rank),
        "WORLD_SIZE": str(world_size),
        "LOCAL_RANK": "0",
        "LOCAL_WORLD_SIZE": "1",
        "MASTER_ADDR": host,
        "MASTER_PORT": port,
    }
