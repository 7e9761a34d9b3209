"""The factor on BA."""

import pytest
import torch

from basis_zoo import InputScale


def test_none_and_fixed_are_numbers() -> None:
    assert InputScale()() == 1.0
    assert InputScale("fixed", 30.0)() == 30.0
    assert not list(InputScale("fixed", 30.0).parameters())


def test_learned_starts_at_its_value_and_stays_positive() -> None:
    scale = InputScale("learned", 30.0)
    assert scale().item() == pytest.approx(30.0, rel=1e-6)
    scale().backward()
    assert scale.log_scale.grad.item() == pytest.approx(30.0, rel=1e-6)
    with torch.no_grad():
        scale.log_scale.sub_(50)
    assert scale().item() > 0


def test_rms_makes_the_root_mean_square_the_value() -> None:
    x = torch.randn(1000, generator=torch.Generator().manual_seed(0)) * 0.02
    scale = InputScale("rms", 1.5)
    scale.observe(mean_square=x.square().mean())
    assert (scale() * x).square().mean().sqrt().item() == pytest.approx(1.5, rel=1e-5)


def test_range_makes_the_largest_the_value() -> None:
    scale = InputScale("range", 3.0)
    scale.observe(peak=torch.tensor(0.06))
    assert scale().item() == pytest.approx(50.0, rel=1e-5)


def test_zero_has_no_scale_and_the_first_positive_measurement_is_kept() -> None:
    scale = InputScale("rms")
    scale.observe(mean_square=torch.tensor(0.0))
    assert scale() == 1.0
    scale.observe(mean_square=torch.tensor(4.0))
    scale.observe(mean_square=torch.tensor(400.0))
    assert scale().item() == 0.5


def test_momentum_tracks() -> None:
    scale = InputScale("range", 1.0, momentum=0.75)
    for peak in (1.0, 2.0, 0.0):
        scale.observe(peak=torch.tensor(peak))
    assert scale().item() == pytest.approx(1 / 1.25)


def test_what_was_measured_is_saved() -> None:
    scale, other = InputScale("rms"), InputScale("rms")
    scale.observe(mean_square=torch.tensor(4.0))
    other.load_state_dict(scale.state_dict())
    assert other() == scale()


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (("rsm",), "Did you mean 'rms'"),
        (("fixed", 0.0), "positive"),
        (("fixed", 1.0, 0.9), "momentum"),
        (("rms", 1.0, 1.0), "momentum"),
    ],
)
def test_wrong_scales_are_refused(arguments: tuple, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        InputScale(*arguments)


def test_a_missing_measurement_is_refused() -> None:
    with pytest.raises(ValueError, match="mean_square"):
        InputScale("rms").observe(peak=torch.tensor(1.0))
    InputScale("fixed", 2.0).observe()  # needs none


def test_it_knows_whether_it_was_measured_and_asks_no_more_than_once() -> None:
    scale, asked = InputScale("range"), []

    class Watched(torch.Tensor):
        def __bool__(self) -> bool:
            asked.append(1)
            return super().__bool__()

    scale.measured = scale.measured.as_subclass(Watched)
    assert not scale.is_measured() and not scale.is_measured() and len(asked) == 2
    scale.observe(peak=torch.tensor(0.0))
    assert not scale.is_measured()
    scale.observe(peak=torch.tensor(2.0))
    assert scale.is_measured() and scale.is_measured() and len(asked) == 4
    scale.load_state_dict(InputScale("range").state_dict())
    assert not scale.is_measured()
