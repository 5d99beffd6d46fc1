"""How well a usual counter does on a dataset: what its labels let anyone learn.

python benchmarks/density.py DATASET [SIDE [EPOCHS [SEED]]]    # 160 px, 100 epochs, seed 0

DATASET has one category and all three splits; SIDE is even. EPOCHS may be a time, as `10min`: so
many epochs then as are expected to take it, by the first ten iterations.

A small U-Net (Ronneberger, Fischer and Brox 2015) is taught a density map (Lempitsky and Zisserman
2010): a Gaussian of sum 1 at every object; the sum of a map is the count. Of raydual it has the
dataset, its canvas and augmentation, and the figures. No weights are chosen: those after the last
epoch count every split, the training split too, so that what is learned by heart shows.
"""

from __future__ import annotations

import sys
import time
from itertools import pairwise

import numpy as np
import torch
import torch.nn.functional as F
from PIL import Image
from rich.console import Console
from rich.progress import track
from torch import Tensor, nn

from raydual.counting.count_figures import count_figures
from raydual.counting.ratios import intervals
from raydual.data.augment import augment
from raydual.data.images import decode_image
from raydual.data.letterbox import Letterbox
from raydual.data.schema import read_rows

BATCH, PEAK_LR, WIDTH = 8, 2e-3, 24
SPREAD = 2.0
"""Standard deviation of an object's Gaussian in cells of the map, which are 2 pixels wide."""

SCALE = 100.0
"""Maps are taught this many times as high: the sums of their Gaussians alone are small."""

BARS = Console(stderr=True)

Objects = tuple[str, Image.Image, np.ndarray]
"""An image's id, the image, and its points (N, 2) in pixels of it."""


class UNet(nn.Module):
    """Images (B, 3, S, S) -> density maps (B, S / 2, S / 2)."""

    def __init__(self, width: int = WIDTH) -> None:
        super().__init__()
        self.stem = nn.Sequential(_layer(3, width, stride=2), _layer(width, width))
        downs = (width, 2 * width, 4 * width, 4 * width)
        self.down = nn.ModuleList(
            nn.Sequential(_layer(a, b), _layer(b, b)) for a, b in pairwise(downs)
        )
        ups = ((8 * width, 2 * width), (4 * width, width), (2 * width, width))
        self.up = nn.ModuleList(nn.Sequential(_layer(a, b), _layer(b, b)) for a, b in ups)
        self.out = nn.Conv2d(width, 1, 1)

    def forward(self, images: Tensor) -> Tensor:
        """Return maps `SCALE` times as high as densities."""
        levels = [self.stem(images)]
        for down in self.down:
            levels.append(down(F.max_pool2d(levels[-1], 2)))
        seen = levels.pop()
        for up in self.up:
            beside = levels.pop()
            larger = F.interpolate(seen, size=beside.shape[2:], mode="bilinear")
            seen = up(torch.cat([larger, beside], dim=1))
        return self.out(seen)[:, 0]


def _layer(inputs: int, outputs: int, stride: int = 1) -> nn.Sequential:
    convolution = nn.Conv2d(inputs, outputs, 3, stride, padding=1, bias=False)
    return nn.Sequential(convolution, nn.BatchNorm2d(outputs), nn.ReLU())


def pixels(image: Image.Image, side: int) -> Tensor:
    """Return an image (3, side, side) in [0, 1]."""
    canvas = Letterbox(*image.size, side).apply(image)
    return torch.from_numpy(canvas).permute(2, 0, 1).float() / 255


def density(image: Image.Image, points: np.ndarray, side: int) -> Tensor:
    """Return the density map (side / 2, side / 2) of the objects in an image."""
    centres = torch.arange(side // 2) + 0.5
    canvas = Letterbox(*image.size, side).to_canvas(points)
    x, y = torch.from_numpy((canvas.T + 1) * side / 4).float()
    across, down = (
        torch.softmax(-((centres - at[:, None]) ** 2) / (2 * SPREAD**2), dim=1) for at in (x, y)
    )
    return torch.einsum("nh,nw->hw", down, across)


def epochs_in(seconds: float, objects: list[Objects], side: int) -> int:
    """Return how many epochs take so long, by ten iterations of a network that is thrown away."""
    started, some = time.perf_counter(), objects[: 10 * BATCH]
    train(some, side, 1, seed=0)
    each = (time.perf_counter() - started) / (len(some) // BATCH)
    return max(1, round(seconds / (each * (len(objects) // BATCH))))


def train(objects: list[Objects], side: int, epochs: int, seed: int) -> UNet:
    """Teach a network with AdamW and one cycle of the learning rate."""
    torch.manual_seed(seed)
    model, steps = UNet(), len(objects) // BATCH
    optimizer = torch.optim.AdamW(model.parameters(), weight_decay=1e-3)
    schedule = torch.optim.lr_scheduler.OneCycleLR(optimizer, PEAK_LR, total_steps=epochs * steps)
    for epoch in track(range(epochs), "Training", console=BARS):
        order = torch.randperm(len(objects)).tolist()
        for step in range(steps):
            rows = [objects[i] for i in order[step * BATCH : (step + 1) * BATCH]]
            views = [augment(image, points, seed, epoch, name) for name, image, points in rows]
            images = torch.stack([pixels(image, side) for image, _ in views])
            maps = torch.stack([density(image, points, side) for image, points in views])
            found = model(images)
            too_many = found.sum(dim=(1, 2)) / SCALE - maps.sum(dim=(1, 2))
            loss = (found - SCALE * maps).square().mean() + 0.02 * too_many.abs().mean()
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
            schedule.step()
    return model.eval()


@torch.no_grad()
def count(model: UNet, objects: list[Objects], side: int) -> np.ndarray:
    """Return the counts (images,), rounded."""
    maps = (
        model(pixels(image, side)[None]) for _, image, _ in track(objects, "Counting", console=BARS)
    )
    return np.array([float(m.sum()) / SCALE for m in maps]).round()


def mae(true: np.ndarray, counted: np.ndarray) -> str:
    """Return the mean absolute error and its 95 % interval."""
    ratio = count_figures(true, counted)["mae"]
    low, high = intervals({"mae": ratio})["mae"] or (np.nan, np.nan)
    return f"{ratio.value:.3f} [{low:.3f}, {high:.3f}]"


def main(dataset: str, side: str = "160", length: str = "100", seed: str = "0") -> None:
    """Print a row for each split."""
    size = int(side)
    splits: dict[str, list[Objects]] = {
        split: [(row.id, decode_image(row.image), row.points) for row in read_rows(dataset, split)]
        for split in ("train", "val", "test")
    }
    seconds = 60 * float(length.removesuffix("min")) if length.endswith("min") else None
    epochs = int(length) if seconds is None else epochs_in(seconds, splits["train"], size)
    started = time.perf_counter()
    model = train(splits["train"], size, epochs, int(seed))
    minutes = (time.perf_counter() - started) / 60
    median = np.median([len(points) for *_, points in splits["train"]])
    threads = torch.get_num_threads()
    print(f"{dataset}, {side} px, {epochs} epochs, {minutes:.1f} min, {threads} threads\n")
    print("| split | images | MAE | always median | correlation of counts |")
    print("| --- | --- | --- | --- | --- |")
    for split, objects in splits.items():
        true = np.array([len(points) for *_, points in objects])
        counted = count(model, objects, size)
        print(
            f"| {split} | {len(true)} | {mae(true, counted)} | "
            f"{mae(true, np.full(len(true), median))} | {np.corrcoef(true, counted)[0, 1]:.2f} |"
        )


if __name__ == "__main__":
    main(*sys.argv[1:5])
