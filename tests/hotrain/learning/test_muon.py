"""Muon against singular values, a slow twin in float64, and AdamW where it is AdamW."""

from __future__ import annotations

import copy
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import numpy.typing as npt
import pytest
import torch
from torch import Tensor, nn

from hotrain.learning.muon import Muon, is_matrix, orthogonal
from hotrain.learning.optimizer import parameter_groups
from hotrain.model import create_model, logits_of

Doubles = npt.NDArray[np.float64]


@pytest.mark.parametrize("shape", [(9, 40), (40, 9), (17, 17), (1, 5)])
@pytest.mark.parametrize("scale", [1.0, 1e-12, 1e12])
def test_orthogonal_keeps_directions_and_evens_lengths(shape: tuple[int, int], scale: float) -> None:
    """U^T X V is diagonal again, and its diagonal lies in the quintic's band."""
    generator = torch.Generator().manual_seed(0)
    left, _, right = torch.linalg.svd(torch.randn(shape, generator=generator), full_matrices=False)
    lengths = torch.logspace(0, -1.9, min(shape))
    result = orthogonal(left * lengths @ right * scale)
    seen = left.T @ result @ right.T
    assert seen.diagonal().min() > 0.66 and seen.diagonal().max() < 1.22
    assert (seen - seen.diagonal().diag()).abs().max() < 2e-3


def test_orthogonal_keeps_the_order_of_what_it_cannot_lift() -> None:
    """Directions below the band come closer to it, none turns round; zeros stay zeros."""
    lengths = torch.logspace(-2.4, -6, 12)
    result = orthogonal(torch.cat([torch.ones(1), lengths]).diag()).diagonal()
    assert (result > 0).all() and (result[1:].diff() < 0).all()
    assert (result[1:] > 5 * lengths).all()
    assert torch.equal(orthogonal(torch.zeros(3, 5)), torch.zeros(3, 5))


def slow_orthogonal(matrix: Doubles) -> Doubles:
    """Every singular value by itself through the quintic, from the same bound."""
    left, values, right = np.linalg.svd(matrix, full_matrices=False)
    values = values / np.sum(values**8) ** (1 / 8)
    for _ in range(4):
        values = 3.4445 * values - 4.7750 * values**3 + 2.0315 * values**5
    return np.asarray(left * values @ right)


def test_orthogonal_is_its_polynomial() -> None:
    matrix = torch.randn(12, 30, generator=torch.Generator().manual_seed(1))
    np.testing.assert_allclose(orthogonal(matrix), slow_orthogonal(matrix.double().numpy()), atol=1e-5)


def test_columns_of_zeros_stay_zero_and_change_no_other() -> None:
    """So the taps that `_move` leaves out on the CPU are taken as well elsewhere, with the same result."""
    matrix = torch.randn(12, 30, generator=torch.Generator().manual_seed(3))
    live = torch.arange(70) % 7 > 3
    wide = torch.zeros(12, 70)
    wide[:, live] = matrix
    result = orthogonal(wide)
    assert not result[:, ~live].any()
    torch.testing.assert_close(result[:, live], orthogonal(matrix), atol=1e-5, rtol=0)


@pytest.mark.parametrize("layout", [torch.contiguous_format, torch.channels_last])
def test_steps_follow_their_formula(layout: torch.memory_format) -> None:
    """Momentum, Nesterov's look ahead, decay and size, for a kernel whose corner taps never have a gradient."""
    rng = np.random.default_rng(0)
    kernel = nn.Parameter(torch.from_numpy(rng.normal(size=(12, 5, 3, 3))).float().to(memory_format=layout))
    optimizer = Muon([{"params": [kernel], "lr": 0.1, "weight_decay": 0.2}])
    live = np.ones((3, 3), bool)
    live[::2, ::2] = False
    expected, momentum = kernel.detach().double().numpy().copy(), np.zeros((12, 5, 3, 3))
    for number in range(4):
        gradient = rng.normal(size=kernel.shape) * live
        if number > 1:
            gradient[..., 1, :] = 0  # a tap that had one before stays in the matrix
        kernel.grad = torch.from_numpy(gradient).float().to(memory_format=layout)
        momentum += 0.05 * (gradient - momentum)
        direction = (gradient + 0.95 * (momentum - gradient))[..., live].reshape(12, -1)
        step = np.zeros_like(expected)
        step[..., live] = slow_orthogonal(direction).reshape(12, 5, -1) * 0.2 * np.sqrt(max(direction.shape))
        expected = expected * (1 - 0.1 * 0.2) - 0.1 * step
        optimizer.step()
        np.testing.assert_allclose(kernel.detach(), expected, atol=2e-5)


@pytest.mark.skipif(not hasattr(torch.optim, "Muon"), reason="this torch has no Muon to compare with")
def test_steps_are_those_of_torch_s_own() -> None:
    """Which takes plain matrices, in bfloat16, from the norm of the matrix in five rounds: near, not equal."""
    generator = torch.Generator().manual_seed(2)
    kernel = nn.Parameter(torch.randn(24, 60, 1, 1, generator=generator))
    matrix = nn.Parameter(kernel.detach().flatten(1).clone())
    ours = Muon([{"params": [kernel], "lr": 0.1, "weight_decay": 0.2}])
    theirs = torch.optim.Muon([matrix], lr=0.1, weight_decay=0.2, adjust_lr_fn="match_rms_adamw")
    for _ in range(5):
        before = matrix.detach() * (1 - 0.1 * 0.2), kernel.detach().flatten(1) * (1 - 0.1 * 0.2)
        matrix.grad = torch.logspace(0, -1.2, 24)[:, None] * torch.randn(24, 60, generator=generator)
        kernel.grad = matrix.grad[..., None, None].clone()
        ours.step(), theirs.step()
        expected, found = matrix.detach() - before[0], kernel.detach().flatten(1) - before[1]
        assert torch.cosine_similarity(matrix.grad.flatten(), -expected.flatten(), 0) < 0.8
        assert torch.cosine_similarity(expected.flatten(), found.flatten(), 0) > 0.94
        assert float(found.norm()) == pytest.approx(float(expected.norm()), rel=0.1)


def trained(model: nn.Module, optimizer: torch.optim.Optimizer, steps: range) -> dict[str, Tensor]:
    """Weights after these steps, each of which has an image of its own."""
    model.train()
    for number in steps:
        images = torch.randn(2, 3, 64, 64, generator=torch.Generator().manual_seed(number))
        optimizer.zero_grad()
        torch.manual_seed(number)
        logits_of(model, images)["out"].square().mean().backward()
        optimizer.step()
    return {name: value.clone() for name, value in model.state_dict().items()}


def test_what_is_no_matrix_is_adamw_s() -> None:
    """From the same gradients; and what is one keeps its gradient, for those who look at it after the step."""
    model = create_model("lraspp_mobilenet_v3_large", 3)
    twin = copy.deepcopy(model)
    for optimizer in (
        Muon(parameter_groups(model, 0.01, 0.5, 0.1)),
        torch.optim.AdamW(parameter_groups(twin, 0.01, 0.5, 0.1)),
    ):
        for number, group in enumerate(optimizer.param_groups):
            for parameter in group["params"]:
                generator = torch.Generator().manual_seed(number)
                parameter.grad = torch.randn(parameter.shape, generator=generator)
        optimizer.step()
    kinds = set()
    for (name, parameter), other in zip(model.named_parameters(), twin.parameters(), strict=True):
        assert parameter.grad is not None and torch.equal(parameter.grad, other.grad), name
        same = torch.allclose(parameter, other, rtol=0, atol=1e-7)
        assert same != is_matrix(parameter), name
        kinds.add((is_matrix(parameter), parameter.ndim))
    assert kinds == {(True, 4), (False, 4), (False, 1)}


@pytest.mark.parametrize("name", ["deeplabv3_resnet50", "lraspp_mobilenet_v3_large"])
def test_matrices_are_the_dense_kernels_before_the_last_layer(name: str) -> None:
    model = create_model(name, 3)
    found = {name for name, value in model.named_parameters() if is_matrix(value)}
    convolutions = {name: module for name, module in model.named_modules() if isinstance(module, nn.Conv2d)}
    dense = {f"{name}.weight" for name, module in convolutions.items() if module.groups == 1}
    assert found < dense
    assert all(convolutions[name.removesuffix(".weight")].out_channels == 3 for name in dense - found)


def test_kernels_side_by_side_move_as_one_after_the_other(restored_threads: None) -> None:
    """To the bit, and the threads of everybody else stay as many as they were."""
    model = create_model("deeplabv3_mobilenet_v3_large", 3).to(memory_format=torch.channels_last)
    found = []
    for threads in (1, 3):
        twin = copy.deepcopy(model)
        torch.set_num_threads(threads)
        optimizer = Muon(parameter_groups(twin, 0.01, 1, 0.1))
        for _ in range(2):
            for number, parameter in enumerate(twin.parameters()):
                parameter.grad = torch.randn(parameter.shape, generator=torch.Generator().manual_seed(number))
            optimizer.step()
        assert torch.get_num_threads() == threads
        with ThreadPoolExecutor(1) as another:
            assert another.submit(torch.get_num_threads).result() == threads
        found.append([parameter for parameter in twin.parameters() if is_matrix(parameter)])
    assert all(torch.equal(one, other) for one, other in zip(*found, strict=True))


@pytest.fixture
def restored_threads() -> Iterator[None]:
    threads = torch.get_num_threads()
    yield
    torch.set_num_threads(threads)


def test_state_goes_through_a_file(tmp_path: Path) -> None:
    """A run that is stopped, saved and loaded takes the same steps as one that is not."""
    model = create_model("deeplabv3_mobilenet_v3_large", 3).to(memory_format=torch.channels_last)
    twin = copy.deepcopy(model)
    whole = trained(model, Muon(parameter_groups(model, 0.01, 1, 0.1)), range(3))

    first = Muon(parameter_groups(twin, 0.01, 1, 0.1))
    trained(twin, first, range(2))
    torch.save(first.state_dict(), tmp_path / "optimizer.pt")
    second = Muon(parameter_groups(twin, 0.01, 1, 0.1))
    second.load_state_dict(torch.load(tmp_path / "optimizer.pt", weights_only=True))
    for name, value in trained(twin, second, range(2, 3)).items():
        assert torch.equal(value, whole[name]), name
