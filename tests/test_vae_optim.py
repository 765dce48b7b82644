"""Learning rate, moving average, and what decays."""

import pytest
import torch

from vae.optim import MovingAverage, OptimConfig, build_optimizer, learning_rate


def test_learning_rate_warms_up_and_follows_a_cosine() -> None:
    config = OptimConfig(lr=1.0, warmup_steps=10, min_lr_share=0.1)
    rates = [learning_rate(config, step, 111) for step in range(111)]
    assert rates[0] == pytest.approx(0.1)
    assert rates[9] == rates[10] == 1.0
    assert rates[60] == pytest.approx(0.55)  # half of the cosine lies in the middle between 1 and 0.1
    assert rates[110] == pytest.approx(0.1)
    assert learning_rate(OptimConfig(lr=1.0, warmup_steps=0), 0, 1) == 1.0


def test_the_moving_average_is_the_recurrence() -> None:
    layer = torch.nn.Linear(1, 1, bias=False)
    with torch.no_grad():
        layer.weight.fill_(1.0)
        average = MovingAverage(layer, 0.5)
        expected = 1.0
        for step, value in enumerate((2.0, 3.0, 5.0, 8.0)):
            layer.weight.fill_(value)
            average.update(layer, step)
            keep = min(0.5, (1 + step) / (10 + step))
            expected = keep * expected + (1 - keep) * value
    assert float(average.shadow["weight"]) == pytest.approx(expected)
    average.swap(layer)
    assert layer.weight.item() == pytest.approx(expected)
    average.swap(layer)
    assert layer.weight.item() == 8.0


def test_gains_and_biases_do_not_decay() -> None:
    optimizer = build_optimizer(torch.nn.Conv2d(2, 3, 1), OptimConfig(weight_decay=0.1))
    decays = {tuple(p.shape): group["weight_decay"] for group in optimizer.param_groups for p in group["params"]}
    assert decays == {(3, 2, 1, 1): 0.1, (3,): 0.0}
