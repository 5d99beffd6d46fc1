"""Checkpoints and the folders of runs and searches, as they might be handed to a user."""

from __future__ import annotations

import json
import struct
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import load_file, save_file

from tests.hostile.case import Case
from tests.hostile.materials import (
    TRAIN,
    both,
    changed,
    checkpoint,
    dataset,
    fifo,
    planted,
    planted_python,
    put,
    resign,
)

COUNT = "count a.png --checkpoint model --max-objects 1 --out out"
FROM = f"{TRAIN} data.path=ds model.trunk=model"
STATE = "training_state.pt"
Change = Callable[[Path], object]


def tensors(file: str, change: Callable[[dict[str, torch.Tensor]], Any]) -> Change:
    """Return what changes the tensors of a file; `change` may return others."""

    def apply(place: Path) -> None:
        found = load_file(place / file)
        save_file(change(found) or found, place / file)

    return apply


def content(file: str, change: Callable[[bytes], bytes]) -> Change:
    """Return what changes the bytes of a file."""
    return lambda place: (place / file).write_bytes(change((place / file).read_bytes()))


def entries(file: str, **changes: Any) -> Change:
    """Return what changes some keys of a JSON file."""
    return content(file, lambda old: json.dumps(json.loads(old) | changes).encode())


def planted_weights(place: Path) -> None:
    """Put a pickle where older models keep their weights."""
    (place / "model.safetensors").unlink()
    (place / "pytorch_model.bin").write_bytes(planted(place.parent))


def planted_adapter(place: Path) -> None:
    """Put adapters beside the model whose weights are a pickle."""
    (place / "adapter").mkdir()
    config = {"peft_type": "LORA", "r": 4, "target_modules": ["q_proj"]}
    (place / "adapter/adapter_config.json").write_text(json.dumps(config))
    (place / "adapter/adapter_model.bin").write_bytes(planted(place.parent))


def remote_code(place: Path) -> None:
    """Let the model be made by Python that comes with it."""
    (place / "evil.py").write_text(planted_python(place.parent))
    own = {"AutoModel": "evil.Model", "AutoConfig": "evil.Config"}
    entries("config.json", model_type="evil", auto_map=own)(place)


def layers(number: int) -> Change:
    """Return what gives the language model so many layers."""

    def change(old: bytes) -> bytes:
        about = json.loads(old)
        about["text_config"]["num_hidden_layers"] = number
        del about["text_config"]["layer_types"]
        return json.dumps(about).encode()

    return content("config.json", change)


def piped(file: str) -> Change:
    """Return what puts a pipe in the place of a file."""
    return both(lambda place: (place / file).unlink(), fifo(file))


def header(size: int, text: bytes = b"") -> bytes:
    """Return the head of a safetensors file that says how long it is."""
    return struct.pack("<Q", size) + text


def overlapping(old: bytes) -> bytes:
    """Let every tensor begin at the first byte."""
    size = struct.unpack("<Q", old[:8])[0]
    head = json.loads(old[8 : 8 + size])
    for name, about in head.items():
        if name != "__metadata__":
            start, end = about["data_offsets"]
            about["data_offsets"] = [0, end - start]
    text = json.dumps(head).encode()
    return header(len(text), text) + old[8 + size :]


def nan(found: dict[str, torch.Tensor]) -> None:
    for tensor in found.values():
        tensor.fill_(float("nan"))


def lost(found: dict[str, torch.Tensor]) -> dict[str, torch.Tensor]:
    return dict(list(found.items())[1:])


def bent(found: dict[str, torch.Tensor]) -> dict[str, torch.Tensor]:
    return {name: torch.zeros(3, 5, 7) for name in found}


def manifest(**changes: Any) -> Change:
    """Return what copies a sound checkpoint and changes its manifest."""
    return lambda folder: resign(checkpoint(folder), **changes)


def signed(text: str) -> Change:
    return both(checkpoint, put("model/raydual.json", text))


def files(**more: Any) -> Change:
    """Return what adds files to a manifest."""

    def build(folder: Path) -> None:
        place = checkpoint(folder) / "raydual.json"
        about = json.loads(place.read_text())
        place.write_text(json.dumps(about | {"files": about["files"] | more}))

    return build


def config(key: str, value: Any) -> Change:
    """Return what changes a key of the configuration in a manifest."""

    def build(folder: Path) -> None:
        place = checkpoint(folder)
        about = json.loads((place / "raydual.json").read_text())["config"]
        section, _, name = key.partition(".")
        about[section][name] = value
        resign(place, config=about)

    return build


WEIGHTS: dict[str, tuple[Change, tuple[str, ...]]] = {
    "pickle in the place of the weights": (planted_weights, ("model", "safetensors")),
    "pickle named model.safetensors": (
        lambda p: (p / "model.safetensors").write_bytes(planted(p.parent)), ("model",)),
    "pickle named heads.safetensors": (
        lambda p: (p / "heads.safetensors").write_bytes(planted(p.parent)), ("heads",)),
    "pickle in the place of adapters": (planted_adapter, ("adapter_model.safetensors",)),
    "weights cut in the middle": (
        content("model.safetensors", lambda b: b[: len(b) // 2]), ("model", "damaged")),
    "header of 2**63 bytes": (
        content("model.safetensors", lambda b: header(2**63) + b[8:]), ("model", "damaged")),
    "header of 80 MB that is not there": (
        content("heads.safetensors", lambda b: header(8 * 10**7) + b[8:]), ("heads",)),
    "header of brackets": (
        content("heads.safetensors", lambda b: header(10**5, b"[" * 10**5)), ("heads",)),
    "tensors over each other": (content("heads.safetensors", overlapping), ("heads",)),
    "weights missing": (tensors("model.safetensors", lost), ("model", "lacks")),
    "weights of other shapes": (tensors("model.safetensors", bent), ("model",)),
    "heads of other shapes": (tensors("heads.safetensors", bent), ("heads",)),
    "NaN as weights": (tensors("model.safetensors", nan), ("NaN",)),
    "readouts missing": (tensors("readout.safetensors", lambda t: {"x": t["readout"]}),
                         ("readout",)),
    "Python with the model": (remote_code, ("trust_remote_code",)),
    "model of a family that does not exist": (
        entries("config.json", model_type="<script>"), ("<script>",)),
    "model of a billion layers": (layers(10**9), ("config.json", "num_hidden_layers")),
    "model that is a list": (content("config.json", lambda b: b"[]"), ("model",)),
    "model of a million brackets": (content("config.json", lambda b: b"[" * 10**6), ("model",)),
    "no model": (lambda p: (p / "config.json").unlink(), ("config.json",)),
    "no tokenizer": (lambda p: (p / "tokenizer.json").unlink(), ("model",)),
    "tokenizer that is no tokenizer": (content("tokenizer.json", lambda b: b"{}"), ("model",)),
    "image settings in words": (
        entries("preprocessor_config.json", image_mean="bright"), ("mean",)),
    "image settings missing": (
        lambda p: (p / "preprocessor_config.json").unlink(), ("preprocessor_config.json",)),
    "template of a chat that is no template": (
        lambda p: (p / "chat_template.jinja").write_text("{% for %}"), ("model",)),
    "template that looks into Python": (
        lambda p: (p / "chat_template.jinja").write_text(
            "{{ ''.__class__.__mro__[1].__subclasses__() }}"), ("unsafe",)),
}  # fmt: skip

MANIFESTS: dict[str, tuple[Change, tuple[str, ...]]] = {
    "manifest that is no JSON": (signed("{"), ("raydual.json",)),
    "manifest that is a list": (signed("[]"), ("raydual.json",)),
    "manifest of a million brackets": (signed("[" * 10**6), ("raydual.json",)),
    "manifest of another format": (manifest(format=99), ("format 99",)),
    "manifest without a configuration": (signed('{"format": 1, "files": {}}'), ("config",)),
    "configuration that is a number": (manifest(config=5), ("config",)),
    "configuration with an unknown key": (manifest(config={"evil": 1}), ("evil",)),
    "file above the folder": (files(**{"../../canary.txt": 9}), ("../../canary.txt", "outside")),
    "file by an absolute path": (files(**{"/etc/passwd": 9}), ("/etc/passwd", "outside")),
    "size in words": (files(**{"config.json": "large"}), ("config.json",)),
    "file that is missing": (files(**{"more.safetensors": 9}), ("more.safetensors",)),
    "categories that are a number": (manifest(categories=5), ("categories",)),
    "categories that are numbers": (manifest(categories=[1, 2]), ("categories",)),
    "NaN as a threshold": (manifest(done_thresholds={"a": float("nan")}), ("done_thresholds",)),
    "images of 10**9 pixels a side": (config("data.image_size", 10**9), ("data.image_size",)),
    "adapters of the rank 10**9": (config("model.lora.r", 5), ("model.lora",)),
    "pipe in the place of the manifest": (
        both(checkpoint, lambda f: (f / "model/raydual.json").unlink(), fifo("model/raydual.json")),
        ("neither a run nor a checkpoint",)),
    "pipe in the place of the tokenizer": (
        changed(checkpoint, piped("tokenizer.json")), ("tokenizer.json", "pipe")),
    "empty folder": (lambda f: (f / "model").mkdir(), ("raydual.json",)),
    "text in the place of a folder": (put("model", "<script>"), ("model",)),
}  # fmt: skip

CASES = [
    *(Case("checkpoint", name, changed(checkpoint, change), COUNT, says)
      for name, (change, says) in WEIGHTS.items()),
    *(Case("checkpoint", name, build, COUNT, says) for name, (build, says) in MANIFESTS.items()),
    Case("checkpoint", "Python with the trunk to train",
         both(dataset, changed(checkpoint, remote_code)), FROM,
         ("trust_remote_code",)),
    Case("checkpoint", "pipe in the trunk to train",
         both(dataset, changed(checkpoint, piped("model.safetensors"))), FROM, ("pipe",)),
    Case("checkpoint", "pickle in the trunk to train",
         both(dataset, changed(checkpoint, planted_weights)), FROM, ("model",)),
    Case("checkpoint", "data that are none to evaluate on", checkpoint,
         "evaluate model --data model --out out/e", ("no dataset",)),
    Case("checkpoint", "split above the data", both(dataset, checkpoint),
         "evaluate model --data ds --split ../.. --out out/e", ("../..",)),
]  # fmt: skip
