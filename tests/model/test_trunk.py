"""Trunks of every proven family: reading, training, saving."""

import json

import numpy as np
import pytest
import torch
from safetensors.torch import load_file
from transformers import AutoModel

from raydual.config_tree import LoraSection
from raydual.errors import CheckpointError, ConfigError
from raydual.model.prompt import Prompter
from raydual.model.trunk import Trunk
from tests.model.families import FAMILIES, Family, write_checkpoint

LORA = LoraSection(r=4, alpha=8, dropout=0.0)
CATEGORIES = ("circles", "unheard-of things", "日本")


class Case:
    """A family on disk, with a batch of three prompts of different lengths."""

    def __init__(self, family: Family, source: str) -> None:
        self.family, self.source = family, source
        self.prompter = Prompter.from_pretrained(source, family.image_size)
        self.images = np.random.default_rng(0).integers(
            0, 256, (3, family.image_size, family.image_size, 3), dtype=np.uint8
        )
        self.inputs = self.prompter.encode(self.images, CATEGORIES, [0, 12, 3])

    def trunk(self, **options) -> Trunk:
        options = {"lora": None, "seed": 0, "image_size": self.family.image_size} | options
        return Trunk.from_pretrained(self.source, **options).eval()

    def load(self, folder) -> Trunk:
        return Trunk.load(folder, image_size=self.family.image_size).eval()


@pytest.fixture(
    scope="module", params=(*FAMILIES, Family("tiny", 48, (6, 6))), ids=lambda f: f.name
)
def case(request, tmp_path_factory) -> Case:
    family: Family = request.param
    if family.name == "tiny":
        return Case(family, "tiny")
    return Case(family, str(write_checkpoint(family, tmp_path_factory.mktemp(family.name))))


@pytest.fixture(params=[None, LORA], ids=["full", "lora"])
def lora(request) -> LoraSection | None:
    return request.param


def _nudge(trunk: Trunk) -> None:
    """Move every trainable weight, as a step of training would."""
    with torch.no_grad():
        for parameter in trunk.parameters():
            if parameter.requires_grad:
                parameter.add_(torch.randn_like(parameter) * 0.02)


def _equal(first, second) -> bool:
    return all(torch.equal(a, b) for a, b in zip(first, second, strict=True))


@torch.no_grad()
def test_shapes_and_type(case):
    trunk = case.trunk()
    readouts, cells, category = trunk(case.inputs)
    rows, columns = case.family.grid
    assert trunk.grid == case.family.grid == case.prompter.grid
    assert readouts.shape == (3, 3, trunk.hidden_size)
    assert cells.shape == (3, rows * columns, trunk.hidden_size)
    assert category.shape == (3, trunk.hidden_size)
    assert readouts.dtype == cells.dtype == category.dtype == torch.float32


def test_every_trainable_weight_gets_a_gradient_from_either_output(case, lora):
    trunk = case.trunk(lora=lora).train()
    readouts, cells, _ = trunk(case.inputs)
    outputs = {"both": readouts.sum() + cells.sum(), "readouts": readouts.sum()}
    for name, output in outputs.items():
        trunk.zero_grad()
        output.backward(retain_graph=True)
        idle = [n for n, p in trunk.named_parameters() if p.requires_grad and p.grad is None]
        assert idle == [], name


def test_lora_trains_adapters_of_the_language_model_and_readouts_only(case):
    trunk = case.trunk(lora=LORA)
    trainable = {n for n, p in trunk.named_parameters() if p.requires_grad}
    adapters = trainable - {"readout"}
    assert "readout" in trainable
    assert all(".lora_" in name for name in adapters)
    assert all("language_model.layers" in n or "text_model.layers" in n for n in adapters)
    layers = trunk.model.config.get_text_config().num_hidden_layers
    assert len(adapters) == layers * 7 * 2


def test_rank_zero_is_full_fine_tuning(case):
    assert all(p.requires_grad for p in case.trunk(lora=LoraSection(r=0)).parameters())


def test_save_and_load_are_equal_to_the_bit(case, lora, tmp_path):
    trunk = case.trunk(lora=lora)
    _nudge(trunk)
    trunk.save_pretrained(tmp_path)
    again = case.load(tmp_path)
    assert _equal(trunk(case.inputs), again(case.inputs))
    assert trunk.state_dict().keys() == again.state_dict().keys()
    wanted = {n for n, p in trunk.named_parameters() if p.requires_grad}
    assert wanted == {n for n, p in again.named_parameters() if p.requires_grad}


def test_a_whole_state_dict_can_be_saved_in_place_of_ones_own(case, lora, tmp_path):
    trunk, other = case.trunk(lora=lora), case.trunk(lora=lora, seed=1)
    _nudge(other)
    trunk.save_pretrained(tmp_path, state_dict=other.state_dict())
    assert _equal(other(case.inputs), case.load(tmp_path)(case.inputs))


def test_a_checkpoint_is_a_trunk_to_start_from(case, lora, tmp_path):
    trunk = case.trunk(lora=lora)
    _nudge(trunk)
    trunk.save_pretrained(tmp_path)
    case.prompter.save_pretrained(tmp_path)
    assert Prompter.from_pretrained(str(tmp_path), case.family.image_size).grid == trunk.grid
    start = Trunk.from_pretrained(
        str(tmp_path), image_size=case.family.image_size, lora=None, seed=5
    ).eval()
    for before, after in zip(trunk(case.inputs), start(case.inputs), strict=True):
        torch.testing.assert_close(after, before, atol=1e-5, rtol=1e-5)


def test_a_checkpoint_opens_with_transformers_alone(case, tmp_path):
    trunk = case.trunk()
    trunk.save_pretrained(tmp_path)
    model = AutoModel.from_pretrained(tmp_path)
    assert {f"model.{n}" for n in model.state_dict()} == trunk.state_dict().keys() - {"readout"}


@torch.no_grad()
def test_an_example_alone_and_padded_in_a_batch_reads_the_same(case):
    trunk = case.trunk()
    together = trunk(case.inputs)
    for i, (category, number) in enumerate(zip(CATEGORIES, [0, 12, 3], strict=True)):
        alone = trunk(case.prompter.encode(case.images[i : i + 1], [category], [number]))
        for one, batch in zip(alone, together, strict=True):
            torch.testing.assert_close(one, batch[i : i + 1], atol=1e-5, rtol=1e-5)


@torch.no_grad()
def test_the_last_three_positions_are_the_readouts(case):
    trunk = case.trunk()
    before = trunk(case.inputs)
    trunk.readout[1] += 1.0
    after = trunk(case.inputs)
    changed = [not torch.equal(before.readouts[:, i], after.readouts[:, i]) for i in range(3)]
    assert changed == [False, True, True]
    assert torch.equal(before.cells, after.cells)
    assert torch.equal(before.category, after.category)


@torch.no_grad()
def test_cells_are_in_raster_order(case):
    """What is painted into the top right corner shows there: convolutions see a cell further."""
    trunk = case.trunk()
    rows, columns = case.family.grid
    side = case.family.image_size // rows
    painted = case.images.copy()
    painted[:, :side, -side:] = 255 - painted[:, :side, -side:]
    inputs = case.prompter.encode(painted, CATEGORIES, [0, 12, 3])
    change = (trunk(inputs).cells - trunk(case.inputs).cells).norm(dim=-1)
    reach = 1 if "fast_vlm" in trunk.model.config.model_type else 0
    for cell in change.argmax(dim=1).tolist():
        row, column = divmod(cell, columns)
        assert row <= reach
        assert column >= columns - 1 - reach


def test_the_seed_decides_and_the_global_generator_is_left_alone(case, lora):
    torch.manual_seed(3)
    state = torch.get_rng_state()
    first, again, other = (case.trunk(lora=lora, seed=seed) for seed in (7, 7, 8))
    assert torch.equal(state, torch.get_rng_state())
    assert _equal(first.state_dict().values(), again.state_dict().values())
    assert not torch.equal(first.readout, other.readout)


def test_images_looked_at_once_for_two_batches_give_the_same_passes(case):
    trunk = case.trunk(lora=LORA).train()
    second = case.prompter.encode(255 - case.images[:2], CATEGORIES[:2], [7, 0])
    towers: list[int] = []
    base = trunk.model.get_base_model()
    tower = next(m for n, m in base.named_children() if "vis" in n)
    tower.register_forward_hook(lambda *_: towers.append(1))
    results = []
    for batches in ([case.inputs, second], trunk.look([case.inputs, second])):
        for batch in batches:
            trunk.zero_grad()
            hidden = trunk(batch)
            hidden.cells.square().sum().backward()
            gradients = [p.grad for p in trunk.parameters() if p.requires_grad]
            results.append([*hidden, *gradients])
    assert len(towers) == 1 + 2
    for i in range(2):
        torch.testing.assert_close(results[i], results[i + 2], atol=1e-4, rtol=1e-4)


def test_gradient_checkpointing_changes_no_gradient(case, lora):
    gradients = []
    for wanted in (False, True):
        trunk = case.trunk(lora=lora, gradient_checkpointing=wanted).train()
        trunk(case.inputs)[0].square().sum().backward()
        gradients.append({n: p.grad for n, p in trunk.named_parameters() if p.requires_grad})
    for name, gradient in gradients[0].items():
        torch.testing.assert_close(gradients[1][name], gradient, msg=name)


def test_the_frozen_base_may_be_bfloat16(case, tmp_path):
    trunk = case.trunk(lora=LORA, base_dtype=torch.bfloat16)
    types = {p.requires_grad: p.dtype for p in trunk.parameters()}
    assert types == {True: torch.float32, False: torch.bfloat16}
    readouts, cells, _ = trunk(case.inputs)
    (readouts.sum() + cells.sum()).backward()
    assert all(p.grad is not None for p in trunk.parameters() if p.requires_grad)
    trunk.save_pretrained(tmp_path)
    again = case.load(tmp_path)
    assert {p.requires_grad: p.dtype for p in again.parameters()} == types
    assert _equal(trunk(case.inputs), again(case.inputs))


def test_no_file_but_safetensors_and_text(case, tmp_path):
    case.trunk(lora=LORA).save_pretrained(tmp_path)
    kinds = {path.suffix for path in tmp_path.rglob("*") if path.is_file()}
    assert kinds == {".json", ".safetensors"}
    config = json.loads((tmp_path / "adapter" / "adapter_config.json").read_text())
    assert config["base_model_name_or_path"] is None


@pytest.fixture
def saved(tmp_path):
    Trunk.from_pretrained("tiny", image_size=48, lora=LORA, seed=0).save_pretrained(tmp_path)
    return tmp_path


@pytest.mark.parametrize(
    "name",
    [
        "config.json",
        "model.safetensors",
        "readout.safetensors",
        "adapter/adapter_model.safetensors",
    ],
)
@pytest.mark.parametrize("damage", ["missing", "truncated"])
def test_a_damaged_checkpoint_is_one_line(saved, name, damage):
    path = saved / name
    if damage == "missing":
        path.unlink()
    else:
        path.write_bytes(path.read_bytes()[:-20])
    with pytest.raises(CheckpointError) as error:
        Trunk.load(saved, image_size=48)
    assert str(saved) in str(error.value)
    assert "\n" not in str(error.value)


def test_files_of_two_checkpoints_do_not_mix(saved, tmp_path_factory):
    other = write_checkpoint(FAMILIES[0], tmp_path_factory.mktemp("other"))
    for name in ("config.json", "model.safetensors"):
        (saved / name).write_bytes((other / name).read_bytes())
    with pytest.raises(CheckpointError):
        Trunk.load(saved, image_size=32)


def test_weights_that_are_not_all_there_are_refused(tmp_path):
    Trunk.from_pretrained("tiny", image_size=48, lora=None, seed=0).save_pretrained(tmp_path)
    config = json.loads((tmp_path / "config.json").read_text())
    config["text_config"]["num_hidden_layers"] += 1
    config["text_config"].pop("layer_types", None)
    (tmp_path / "config.json").write_text(json.dumps(config))
    with pytest.raises(CheckpointError, match="lacks 12 weights"):
        Trunk.load(tmp_path, image_size=48)


def test_no_checkpoint_of_a_trunk(tmp_path):
    with pytest.raises(CheckpointError, match=r"lacks config.json and readout.safetensors"):
        Trunk.load(tmp_path, image_size=48)


def test_a_folder_without_a_model(tmp_path):
    with pytest.raises(ConfigError, match="cannot be loaded") as error:
        Trunk.from_pretrained(str(tmp_path), image_size=48, lora=None, seed=0)
    assert "\n" not in str(error.value)


def test_a_family_without_a_grid(tmp_path):
    (tmp_path / "config.json").write_text(json.dumps({"model_type": "bert"}))
    with pytest.raises(ConfigError, match=r"'bert'.*Qwen2-VL"):
        Prompter.from_pretrained(str(tmp_path), 48)


def test_the_tiny_trunk_stays_tiny():
    trunk = Trunk.from_pretrained("tiny", image_size=96, lora=None, seed=0)
    assert sum(p.numel() for p in trunk.parameters()) < 1_000_000
    assert trunk.grid == (12, 12)


def test_the_weights_saved_are_those_of_the_base(saved):
    names = load_file(saved / "model.safetensors").keys()
    assert not any("lora" in name or "base_layer" in name for name in names)
