import pytest
import torch

from raydual.model.heads import DoneHead, MLPCoordHead, PointingHead, Position


def test_pointing_reads_the_strongest_cell_within_one_cell_of_its_centre() -> None:
    torch.manual_seed(0)
    head = PointingHead(8, (2, 3))
    out = head(torch.randn(5, 3, 8), torch.randn(5, 6, 8), torch.randn(5, 8))
    best = out.scores.argmax(1)
    assert torch.equal(out.position, out.positions[torch.arange(5), best])
    reach = (out.positions - head.centres).abs()
    assert (reach[..., 0] <= 2 / 3).all()
    assert (reach[..., 1] <= 2 / 2).all()
    assert out.positions.abs().max() <= 1


def test_cell_centres_run_row_by_row_from_the_top_left() -> None:
    head = PointingHead(4, (2, 2))
    assert head.centres.tolist() == [[-0.5, -0.5], [0.5, -0.5], [-0.5, 0.5], [0.5, 0.5]]


def test_every_parameter_of_every_head_gets_a_gradient() -> None:
    torch.manual_seed(0)
    hidden = torch.randn(2, 3, 8), torch.randn(2, 4, 8), torch.randn(2, 8)
    for head in (PointingHead(8, (2, 2)), MLPCoordHead(8, (2, 2)), DoneHead(8, (2, 2))):
        out = head(*hidden)
        parts = [p for p in out if p is not None]
        sum(p.sum() for p in parts).backward()
        assert all(p.grad is not None for p in head.parameters())


def test_heads_answer_in_float32() -> None:
    hidden = [torch.randn(shape).bfloat16() for shape in ((2, 3, 8), (2, 4, 8), (2, 8))]
    assert PointingHead(8, (2, 2))(*hidden).position.dtype == torch.float32
    assert MLPCoordHead(8, (2, 2))(*hidden).position.dtype == torch.float32
    assert DoneHead(8, (2, 2))(*hidden).logit.dtype == torch.float32


def test_positions_are_ranked_by_their_likelihood() -> None:
    positions = torch.arange(6.0).reshape(1, 3, 2)
    left = torch.tensor([[0.0, 9, -9]])
    scores = torch.tensor([[0.0, 1, 2]])
    places, chances, sure = Position(positions[:, 2], scores, positions, left).ranked()
    assert sure.tolist() == left[:, [2, 1, 0]].sigmoid().tolist()
    assert places.tolist() == positions[:, [2, 1, 0]].tolist()
    assert chances.tolist() == [torch.tensor([2.0, 1, 0]).softmax(0).tolist()]
    places, chances, sure = Position(positions[:, 0]).ranked()
    assert (places.tolist(), chances.tolist(), sure.tolist()) == ([[[0, 1]]], [[1]], [[1]])


def test_peaks_are_cells_surer_than_those_around_them() -> None:
    left = torch.tensor([[4.0, 3, -1], [0, 0, 0], [0, 1, 2]])
    positions = torch.arange(18.0).reshape(1, 9, 2)
    peaks = Position(positions[:, 0], left.reshape(1, 9), positions, left.reshape(1, 9)).peaks(
        (3, 3)
    )
    surest = peaks.chances[0] > 0
    assert peaks.positions[0][surest].tolist() == positions[0][[0, 8]].tolist()
    assert peaks.chances[0][surest].tolist() == left.sigmoid().flatten()[[0, 8]].tolist()


def test_one_cell_that_holds_something_is_enough_not_to_be_done() -> None:
    torch.manual_seed(0)
    head = DoneHead(8, (2, 2))
    readouts, cells, category = torch.randn(3, 3, 8), torch.randn(3, 4, 8), torch.randn(3, 8)
    verdict = head(readouts, cells, category)
    readout_alone = head.done_head(readouts[:, 2]).squeeze(1)
    torch.testing.assert_close(verdict.logit, readout_alone - verdict.left.logsumexp(1))
    for part in (head.left.score, head.done_head[-1]):
        torch.nn.init.zeros_(part.weight)
    undecided = head(readouts, cells, category).logit.tolist()
    assert undecided == pytest.approx([0, 0, 0], abs=1e-5)


def test_the_category_alone_changes_what_the_cells_are_asked() -> None:
    torch.manual_seed(0)
    readouts, cells = torch.randn(1, 3, 8), torch.randn(1, 4, 8)
    pointing, done = PointingHead(8, (2, 2)), DoneHead(8, (2, 2))
    apples, pears = torch.randn(2, 1, 8)
    assert not torch.allclose(
        pointing(readouts, cells, apples).scores, pointing(readouts, cells, pears).scores
    )
    assert not torch.allclose(done(readouts, cells, apples).left, done(readouts, cells, pears).left)
