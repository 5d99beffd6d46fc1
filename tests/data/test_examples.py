from __future__ import annotations

from collections.abc import Callable

import numpy as np
import pytest
import torch

from raydual.data.batches import BatchStream
from raydual.data.examples import collate
from raydual.data.loading import Sample, arranged, load_here, random_order
from raydual.data.prefetch import Prefetched
from raydual.model.prompt import Prompter
from raydual.tasks import SEPARATE

COORD_ONLY, DONE_ONLY = SEPARATE

EXACT = ("data.mark.jitter=0", "data.mark.missing=0", "data.mark.doubled=0")


def sample(name: str, objects: int, error: str | None = None) -> Sample:
    points = np.linspace(-0.9, 0.9, 2 * objects).reshape(-1, 2)
    return Sample(name, "circle", np.full((48, 48, 3), 90, np.uint8), points, error)


def test_an_example_depends_on_seed_epoch_row_and_task_alone(small: Callable) -> None:
    config, encoder = small(), Prompter.from_pretrained("tiny", 48)
    samples = [sample(f"row{i}", 5) for i in range(20)]

    def marks(part: list[Sample], objective=DONE_ONLY, epoch: int = 1, config=config) -> list[int]:
        return collate(part, objective, encoder, config, epoch).num_marked

    together = marks(samples)
    assert [marks([s])[0] for s in samples] == together
    assert marks(samples[::-1]) == together[::-1]
    assert marks(samples, epoch=2) != together
    assert marks(samples, objective=COORD_ONLY) != together
    assert marks(samples, config=small("seed=1")) != together


def test_targets_are_the_next_point_and_what_is_marked_shows(small: Callable) -> None:
    config, encoder = small(*EXACT), Prompter.from_pretrained("tiny", 48)
    samples = [sample(f"row{i}", 4) for i in range(8)]
    batch = collate(samples, COORD_ONLY, encoder, config, 1)
    for i, marked in enumerate(batch.num_marked):
        expected = torch.tensor(samples[i].points[marked], dtype=torch.float32)
        torch.testing.assert_close(batch.targets["coord"].values[i, 0], expected)
        assert (batch.canvases[i] != samples[i].pixels).any() == (marked > 0)
        target = batch.targets["coord"]
        left = target.left[i][target.left_mask[i]]
        torch.testing.assert_close(left, torch.from_numpy(samples[i].points[marked:]).float())
    assert batch.targets["coord"].valid.tolist() == [1.0] * 8


def test_with_nearest_any_objects_are_marked_and_the_others_are_left(small: Callable) -> None:
    config, encoder = small(*EXACT, "coord.match=nearest"), Prompter.from_pretrained("tiny", 48)
    one = sample("row", 4)
    lefts = set()
    for epoch in range(80):
        batch = collate([one], COORD_ONLY, encoder, config, epoch)
        target = batch.targets["coord"]
        left = target.left[0][target.left_mask[0]]
        torch.testing.assert_close(target.values[0][target.mask[0]], left)
        where = {int(np.abs(one.points - point).sum(axis=1).argmin()) for point in left.numpy()}
        assert len(where) == len(left) == 4 - batch.num_marked[0]
        assert (batch.canvases[0] != one.pixels).any() == (batch.num_marked[0] > 0)
        lefts.add(frozenset(where))
    assert {len(left) for left in lefts} == {1, 2, 3, 4}
    assert {i for left in lefts if len(left) == 1 for i in left} == {0, 1, 2, 3}


def test_rows_without_objects_or_image_have_no_valid_target(small: Callable) -> None:
    config, encoder = small(), Prompter.from_pretrained("tiny", 48)
    samples = [sample("empty", 0), sample("broken", 0, "cut short"), sample("good", 2)]
    coord = collate(samples, COORD_ONLY, encoder, config, 1).targets["coord"]
    done = collate(samples, DONE_ONLY, encoder, config, 1).targets["done"]
    assert coord.valid.tolist() == [0, 0, 1]
    assert done.valid.tolist() == [1, 0, 1]
    assert done.values[0].item() == 1


def test_a_random_order_has_every_position_and_repeats_by_seed() -> None:
    order = random_order(600, (0, 1))
    assert order == random_order(600, (0, 1)) != random_order(600, (0, 2))
    assert sorted(order) == list(range(600))


def test_samples_are_arranged_from_a_window_of_256() -> None:
    order = random_order(600, (0, 1))[100:]
    taken = []

    def coming():
        for position in sorted(order):
            taken.append(position)
            yield sample(str(position), 1)

    for number, one in enumerate(arranged(coming(), order)):
        assert int(one.id) == order[number]
        assert len(taken) - number <= 256
    assert len(taken) == 500


def test_an_epoch_of_training_sees_every_row_once(small: Callable) -> None:
    config = small("train.max_iterations=null", "train.batch_size=5")
    stream = BatchStream(config, Prompter.from_pretrained("tiny", 48), load_here)
    iterations = list(stream.train(1))
    assert len(iterations) == stream.iterations == 10
    ids = [s.id for micro in iterations for batches in micro for s in batches["coord"].samples]
    assert len(set(ids)) == len(ids) == 48
    other = [s.id for micro in stream.train(2) for b in micro for s in b["coord"].samples]
    assert sorted(other) == sorted(ids)
    assert other != ids


@pytest.mark.parametrize("after", [1, 4, 9, 10])
def test_the_rest_of_an_epoch_is_the_same_read_from_the_middle(small: Callable, after: int) -> None:
    config = small("train.max_iterations=null", "train.batch_size=5")
    for rank in range(2):
        stream = BatchStream(config, Prompter.from_pretrained("tiny", 48), load_here, rank, 2)
        whole, rest = (
            [(b["done"].samples, b["done"].canvases) for i in part for b in i]
            for part in (stream.train(3), stream.train(3, [stream.leg._replace(done=after)]))
        )
        ids = [[s.id for s in samples] for samples, _ in whole[after:]]
        assert ids == [[s.id for s in samples] for samples, _ in rest]
        assert all((a == b).all() for (_, a), (_, b) in zip(whole[after:], rest, strict=True))


def test_prefetched_passes_errors_on_and_can_be_closed_early() -> None:
    def failing():
        yield 1
        raise ValueError("broken")

    items = iter(Prefetched(failing()))
    assert next(items) == 1
    with pytest.raises(ValueError, match="broken"):
        next(items)

    endless = Prefetched(iter(int, 1))
    assert next(iter(endless)) == 0
    endless.close()
    assert not endless._thread.is_alive()
