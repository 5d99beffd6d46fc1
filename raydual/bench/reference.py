"""The two-task loop as one would write it first: what the loop of raydual is compared with.

The design's pseudo-code read plainly: the full `...ForConditionalGeneration` with vocabulary logits
and the hidden states of all layers, the image processor called inside the step, both tasks through
one DDP that searches for unused parameters, `.item()` after each task, torch's DataLoader. Weights,
losses, batches, precision and threads are those of raydual.
"""

from __future__ import annotations

import itertools
import os
import tempfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from typing import Any

import torch
import torch.distributed as dist
from PIL import Image
from torch import Tensor, nn
from torch.nn.parallel import DistributedDataParallel
from torch.optim.lr_scheduler import LambdaLR

from raydual.bench.feed import Rows, loader
from raydual.config_tree import Config
from raydual.data.batches import read_splits
from raydual.data.examples import VAL_EPOCH, Batch
from raydual.data.plan import shuffled, val_plan
from raydual.model.counter import DualTaskCounter
from raydual.model.eyes import Seen
from raydual.model.inputs import mark_inputs
from raydual.model.prompt import Prompter
from raydual.model.source import TINY_FOLDER, quiet_transformers, resolve
from raydual.model.trunk import Trunk
from raydual.model.trunks import SHARED
from raydual.tasks import SEPARATE, Objective
from raydual.training.optim import lr_factor
from raydual.training.parallel import arithmetic

OnStage = Callable[[str], None]


class FullTrunk(Trunk):
    """The weights of a trunk, in the model that also has a vocabulary head, run in full.

    The vocabulary head shares the table of embeddings, whether or not the family ties them.
    """

    def __init__(self, trunk: Trunk, image_size: int) -> None:
        vectors = {name: vector.detach() for name, vector in trunk.vectors().items()}
        super().__init__(trunk.model, vectors, image_size, adapter=trunk.adapter)
        from transformers import AutoModelForImageTextToText

        if hasattr(self.model, "visual"):
            _as_published(self.model.visual)
        with torch.device("meta"), quiet_transformers():
            full = AutoModelForImageTextToText.from_config(self.model.config)
        full.model = self.model
        full.lm_head.weight = self.model.get_input_embeddings().weight
        self.full = full

    def _last_hidden(self, inputs: dict[str, Any], seen: Seen | None) -> Tensor:
        if seen is not None:
            inputs["mm_encoder_outputs"] = {"image": seen.outputs}
        output = self.full(**inputs, output_hidden_states=True, use_cache=False, return_dict=True)
        hidden: Tensor = output.hidden_states[-1]
        return hidden


class Plain(nn.Module):
    """Trunk and both heads in one module; a pass uses one of the heads."""

    def __init__(self, counter: DualTaskCounter, device: torch.device) -> None:
        super().__init__()
        trunk = counter.trunks[SHARED]
        assert isinstance(trunk, Trunk)
        self.trunk = FullTrunk(trunk, counter.config.data.image_size)
        self.heads = counter.heads
        self._bfloat16 = arithmetic(counter.config, device) == torch.bfloat16
        self.to(device)

    def forward(self, inputs: dict[str, Tensor], task: str) -> Any:
        """Run one task."""
        kind = next(self.parameters()).device.type
        with torch.autocast(kind, torch.bfloat16, enabled=self._bfloat16):
            hidden = self.trunk(inputs)
        return self.heads[task](*hidden)


class Processor:
    """The image processor of the family, from transformers, and the prompts.

    Where transformers has none that takes one picture as one grid (SmolVLM cuts it into tiles), it
    is raydual's own.
    """

    def __init__(self, config: Config, prompter: Prompter) -> None:
        self._prompter, self._embeds_marks = prompter, config.embeds_marks
        self._images: Any = None
        settings = prompter.image_settings
        if prompter.layout.layout == "plain":
            from transformers.models.clip.image_processing_pil_clip import CLIPImageProcessorPil

            names = ("image_mean", "image_std", "rescale_factor")
            same = {name: settings[name] for name in names if name in settings}
            self._images = CLIPImageProcessorPil(do_center_crop=False, **same)
        elif prompter.layout.layout == "packed":
            from transformers import AutoImageProcessor

            source = resolve(config.model.trunk)
            assert source != str(TINY_FOLDER)
            self._images = AutoImageProcessor.from_pretrained(source, backend="pil")

    def __call__(self, batch: Batch) -> dict[str, Tensor]:
        """Turn marked pictures and their prompts into a model's inputs."""
        assert batch.canvases is not None
        categories = [sample.category for sample in batch.samples]
        marks = mark_inputs(batch.marks) if self._embeds_marks else {}
        if self._images is None:
            inputs = self._prompter.encode(batch.canvases, categories, batch.num_marked)
            pixels = inputs.pop("images"), inputs.pop("normalised")
            return inputs | self._prompter.layout.pixel_inputs(*pixels) | marks
        pictures = [Image.fromarray(canvas) for canvas in batch.canvases]
        images = self._images(images=pictures, do_resize=False, return_tensors="pt")
        return {**self._prompter.text_inputs(categories, batch.num_marked), **images, **marks}


class Reference:
    """The loop; `train` runs it to the end of `train.epochs`."""

    def __init__(self, config: Config, device: torch.device, on_stage: OnStage) -> None:
        on_stage("making the model")
        self._config, self._device, self._on_stage = config, device, on_stage
        counter = DualTaskCounter.from_config(config, arithmetic(config, device))
        self.grid = counter.grid
        self.processor = Processor(config, counter.prompter)
        self.model = Plain(counter, device)
        self.ddp = DistributedDataParallel(self.model, find_unused_parameters=True)
        self._train, self._val = read_splits(config)
        self._owned, self._optimizers, self._schedules = {}, {}, {}
        for objective in SEPARATE:
            (task,) = objective.tasks
            section = task.settings(config)
            modules = (self.model.trunk, self.model.heads[task.name])
            owned = [p for m in modules for p in m.parameters() if p.requires_grad]
            optimizer = torch.optim.AdamW(owned, section.lr, weight_decay=section.weight_decay)
            steps = config.train.epochs * (config.train.max_iterations or 0)
            factor = partial(_factor, section, steps)
            self._owned[task.name], self._optimizers[task.name] = owned, optimizer
            self._schedules[task.name] = LambdaLR(optimizer, factor)

    def train(self) -> None:
        """Train, validate and save, epoch by epoch."""
        for epoch in range(1, self._config.train.epochs + 1):
            self._epoch(epoch)
            self._on_stage(f"validation after epoch {epoch}")
            self._validate()
            self._on_stage(f"saving after epoch {epoch}")
            self._save()

    def step(self, batch: Batch, objective: Objective, at: str = "") -> float:
        """Take one step of one task; return its loss."""
        (task,) = objective.tasks
        self._on_stage(f"{at}processor of {task.name}")
        batch = _with_inputs(batch, self.processor(batch))
        self._on_stage(f"{at}copying to the device")
        batch = batch.to(self._device)
        self._on_stage(f"{at}forward pass of {task.name}")
        loss = self.loss(batch, objective)
        self._on_stage(f"{at}backward pass of {task.name}")
        self._optimizers[task.name].zero_grad()
        loss.backward()
        self._on_stage(f"{at}clipping of {task.name}")
        nn.utils.clip_grad_norm_(self._owned[task.name], task.settings(self._config).clip_norm)
        self._on_stage(f"{at}step of {task.name}")
        self._optimizers[task.name].step()
        self._schedules[task.name].step()
        self._on_stage(f"{at}figures of {task.name}")
        return loss.item()

    def loss(self, batch: Batch, objective: Objective) -> Tensor:
        """Return the mean over valid examples, as raydual takes it."""
        (task,) = objective.tasks
        target = batch.targets[task.name]
        judged = task.criterion(self.ddp(batch.inputs, task.name), target, self.grid, self._config)
        return (judged.objective * target.valid).sum() / target.valid.sum().clamp(min=1)

    def _epoch(self, epoch: int) -> None:
        self.ddp.train()
        units = shuffled(self._train, seed=self._config.seed, epoch=epoch)
        batches = self._batches(units, epoch, self._config.train.max_iterations)
        for number in itertools.count(1):
            at = f"epoch {epoch}, iteration {number}, "
            self._on_stage(f"{at}waiting for data")
            if (by_name := next(batches, None)) is None:
                return
            for objective in SEPARATE:
                self.step(by_name[objective.name], objective, at)

    @torch.no_grad()
    def _validate(self) -> float:
        self.ddp.eval()
        total, train = 0.0, self._config.train
        rows = train.max_val_batches and train.max_val_batches * train.batch_size
        units = val_plan(self._val, rank=0, world_size=1, max_rows=rows or 2**62)
        for by_name in self._batches(units, VAL_EPOCH, None):
            for objective in SEPARATE:
                batch = by_name[objective.name]
                batch = _with_inputs(batch, self.processor(batch)).to(self._device)
                total += self.loss(batch, objective).item()
        return total

    def _save(self) -> None:
        with tempfile.TemporaryDirectory(dir=self._config.run.storage) as folder:
            torch.save(self.model.state_dict(), Path(folder) / "model.pt")
            for name, optimizer in self._optimizers.items():
                torch.save(optimizer.state_dict(), Path(folder) / f"{name}.pt")

    def _batches(self, units: Any, epoch: int, most: int | None) -> Iterator[dict[str, Batch]]:
        rows = Rows(self._config, units, SEPARATE, epoch)
        return itertools.islice(loader(rows), most)


@contextmanager
def world_of_one(device: torch.device) -> Iterator[None]:
    """A process group of this process alone."""
    kind = "nccl" if device.type == "cuda" else "gloo"
    file = tempfile.NamedTemporaryFile(delete=False)  # noqa: SIM115
    dist.init_process_group(kind, init_method=f"file://{file.name}", rank=0, world_size=1)
    try:
        yield
    finally:
        dist.destroy_process_group()
        file.close()
        if os.path.exists(file.name):
            os.unlink(file.name)


def _factor(section: Any, steps: int, step: int) -> float:
    return lr_factor(section, step, steps)


def _with_inputs(batch: Batch, inputs: dict[str, Tensor]) -> Batch:
    return Batch(inputs, batch.targets, batch.canvases, batch.marks, batch.samples)


def _as_published(tower: Any) -> None:
    """Undo `take_batches`: the tower as transformers has it, image by image."""
    for module in tower.modules():
        if isinstance(module, nn.Conv3d):
            module.__class__ = nn.Conv3d
    tower.config._attn_implementation = "sdpa"
