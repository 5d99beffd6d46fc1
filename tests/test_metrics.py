import pytest
import torch

from raydual.metrics import Means, Medians, done_figures, natural_weight, pixel_errors


def test_means_weigh_and_mask() -> None:
    means = Means()
    means.update({"a": (torch.tensor([1.0, 3.0]), torch.tensor([1.0, 3.0]))})
    means.update({"a": (torch.tensor([100.0, float("nan")]), torch.tensor([0.0, 0.0]))})
    assert means.compute() == {"a": 2.5}


def test_means_without_weight_are_left_out() -> None:
    means = Means()
    means.update({"a": (torch.ones(2), torch.zeros(2))})
    assert means.compute() == {}


def test_medians_of_valid_examples() -> None:
    medians = Medians()
    medians.update({"px": (torch.tensor([5.0, 1.0, 99.0]), torch.tensor([1.0, 1.0, 0.0]))})
    medians.update({"px": (torch.tensor([2.0]), torch.tensor([1.0]))})
    assert medians.compute() == {"px": 2.0}


def test_pixel_errors_are_of_the_384_pixel_side() -> None:
    error = pixel_errors(torch.tensor([[0.0, 0.0]]), torch.tensor([[3 / 192, 4 / 192]]))
    torch.testing.assert_close(error, torch.tensor([5.0]))


def test_done_figures_by_hand() -> None:
    """TP 2, FP 1, FN 1, TN 1: accuracy 3/5, F1 4/6."""
    logit = torch.tensor([1.0, 2.0, 3.0, -1.0, -2.0, 9.0])
    label = torch.tensor([1.0, 1.0, 0.0, 1.0, 0.0, 0.0])
    valid = torch.tensor([1.0, 1.0, 1.0, 1.0, 1.0, 0.0])
    means = Means()
    means.update(done_figures(logit, label, valid, natural=torch.ones(6)))
    figures = means.compute()
    assert figures["done_accuracy"] == pytest.approx(3 / 5)
    assert figures["done_f1"] == pytest.approx(4 / 6)


def test_natural_accuracy_is_that_of_uniform_k() -> None:
    """N = 3: done at one of four values of k, drawn half of the time."""
    right = torch.tensor([1.0, 0.0])  # right on the done example, wrong on the other
    weights = torch.tensor([natural_weight(1, 3, 0.5), natural_weight(0, 3, 0.5)])
    assert weights.tolist() == [0.5, 1.5]
    assert float((right * weights).sum() / weights.sum()) == pytest.approx(1 / 4)
    assert natural_weight(1, 0, 0.5) == 1
