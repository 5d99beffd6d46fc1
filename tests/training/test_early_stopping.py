import pytest

from raydual.training.early_stopping import EarlyStopping


def test_by_hand() -> None:
    stopper = EarlyStopping(patience=2)
    assert [stopper.update(v) for v in (1.0, 0.5, 0.6, 0.5)] == [True, True, False, False]
    assert stopper.exhausted
    assert (stopper.best, stopper.stalled) == (0.5, 2)
    assert stopper.update(0.4)
    assert not stopper.exhausted


def test_min_delta() -> None:
    stopper = EarlyStopping(patience=1, min_delta=0.1)
    stopper.update(1.0)
    assert not stopper.update(0.95)
    assert stopper.best == 1.0


def test_what_lies_before_is_forgotten() -> None:
    """A low loss by chance at the second of three validations, then honest ones."""
    stopper = EarlyStopping(patience=2, after=3)
    assert [stopper.update(v) for v in (1.0, 0.1, 0.9)] == [True, True, False]
    again = EarlyStopping(patience=2, after=3)
    again.load_state_dict(stopper.state_dict())
    for one in (stopper, again):
        assert [one.update(v) for v in (0.8, 0.7, 0.75)] == [True, True, False]
        assert (one.best, one.stalled, one.exhausted) == (0.7, 1, False)


def test_what_is_to_be_forgotten_ends_nothing_and_is_forgotten_once() -> None:
    stopper = EarlyStopping(patience=1, after=3)
    for value in (0.1, 0.9, 0.8):
        stopper.update(value)
        assert not stopper.exhausted
    sooner = EarlyStopping(patience=1, after=2)  # a training that goes on for fewer epochs
    sooner.load_state_dict(stopper.state_dict())
    assert [sooner.update(v) for v in (0.7, 0.8)] == [True, False]
    assert (sooner.best, sooner.exhausted) == (0.7, True)


def test_nan_is_no_improvement() -> None:
    stopper = EarlyStopping(patience=1)
    assert not stopper.update(float("nan"))
    assert stopper.exhausted


def test_state_goes_on() -> None:
    first, second = EarlyStopping(3), EarlyStopping(5)
    for loss in (1.0, 2.0):
        first.update(loss)
    second.load_state_dict(first.state_dict())
    assert (second.best, second.stalled, second.patience) == (1.0, 1, 5)
    assert second.best == pytest.approx(first.best)
