"""Muon: steps of matrices that go equally far in all their directions.

The gradient of a matrix of weights lies in a few directions, and an optimizer that scales each entry by itself follows
those. Muon takes its averaged gradient U S V^T as U V^T, so that rare directions are learnt at the same pace (Jordan et
al., "Muon: an optimizer for hidden layers in neural networks", 2024; with AdamW's size of step and decay: Liu et al.,
arXiv:2502.16982). `torch.optim.Muon` takes parameters of two dimensions only, of which a network of convolutions has
next to none, and computes in bfloat16, which most CPUs only imitate; here a kernel is the matrix of its outputs by all
that one output sees, in float32.
"""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from functools import cache
from typing import Any

import torch
from torch import Tensor

_QUINTIC = (3.4445, -4.7750, 2.0315)  # Jordan et al.: p(s) = 3.4445 s - 4.775 s^3 + 2.0315 s^5 leads into 0.68..1.21
_ROUNDS = 4
_MOMENTUM = 0.95  # with Nesterov's look ahead, as theirs
_RMS = 0.2  # of an entry's step, in learning rates: AdamW's, so one rate suits both (arXiv:2502.16982, section 2.2)
_FEW = 8  # outputs: their AdamW takes the layer that tells classes apart


def is_matrix(parameter: Tensor) -> bool:
    """Whether Muon learns it. AdamW takes depthwise kernels, whose channels have nothing to do with each other, the
    layer of the classes, biases and BatchNorm."""
    return parameter.ndim > 1 and parameter.shape[1] > 1 and parameter.shape[0] > _FEW


class Muon(torch.optim.AdamW):
    """Muon for every parameter that `is_matrix`, AdamW for the others, with one learning rate and one decay.

    Args:
        groups: of parameters, as torch's optimizers take them.
    """

    def __init__(self, groups: list[dict[str, Any]]) -> None:
        super().__init__(groups, fused=True)

    @torch.no_grad()
    def step(self, closure: None = None) -> None:  # type: ignore[override]
        """Update every parameter that has a gradient.

        Args:
            closure: not supported.
        """
        learnt = [
            (parameter, parameter.grad, group)
            for group in self.param_groups
            for parameter in group["params"]
            if parameter.grad is not None and is_matrix(parameter)
        ]
        for parameter, _, _ in learnt:
            parameter.grad = None  # AdamW passes over what has none
        super().step()
        moves = []
        for parameter, gradient, group in learnt:
            parameter.grad = gradient
            state = self.state[parameter]
            if not state:
                state["momentum"] = torch.zeros_like(parameter)
                state["step"] = torch.zeros(())  # not used, but AdamW expects it of every parameter when it is loaded
            parameter.mul_(1 - group["lr"] * group["weight_decay"])
            moves.append((_taps(parameter), _taps(gradient), _taps(state["momentum"]), group["lr"]))
        _move_all(moves)


def _taps(kernel: Tensor) -> Tensor:
    """A view (outputs, taps, inputs): one block of memory in the channels-last layout that training uses."""
    return kernel.view(*kernel.shape[:2], -1).transpose(1, 2)


def _move_all(moves: list[tuple[Tensor, Tensor, Tensor, float]]) -> None:
    """`_move` with each of these arguments; on the CPU several kernels at once, each on one thread.

    Most kernels are so small that threads which share one wait for each other longer than they compute.
    """
    threads = torch.get_num_threads()
    if threads == 1 or not all(weights.is_cpu for weights, *_ in moves):
        for move in moves:
            _move(*move)
        return
    moves = sorted(moves, key=lambda move: _work(move[0]), reverse=True)  # so that all threads end together
    list(_pool(threads).map(_move, *zip(*moves, strict=True)))
    torch.set_num_threads(threads)  # the pool's threads have set what threads to come begin with


def _work(kernel: Tensor) -> int:
    """What an orthogonal step costs, nearly: the kernel's entries by the shorter side of its matrix."""
    return kernel.numel() * min(kernel.shape[0], kernel.shape[1:].numel())


@cache
def _pool(threads: int) -> ThreadPoolExecutor:
    return ThreadPoolExecutor(threads, "muon", initializer=torch.set_num_threads, initargs=(1,))


@torch.no_grad()  # it holds for one thread
def _move(weights: Tensor, gradient: Tensor, momentum: Tensor, lr: float) -> None:
    """Momentum and step of one kernel, in place.

    Taps without a gradient so far are those of a dilated kernel that see only the border's padding. Their columns of
    the matrix are 0 and stay so; they neither count in its size nor, on the CPU, cost time.

    Args:
        weights, gradient, momentum: float32 (outputs, taps, inputs).
        lr: learning rate.
    """
    momentum.lerp_(gradient, 1 - _MOMENTUM)
    reached = (momentum.amax((0, 2)) != 0) | (momentum.amin((0, 2)) != 0)  # a quarter of the time of `any`
    step = _RMS * torch.clamp(reached.sum() * weights.shape[2], min=weights.shape[0]).sqrt()
    if weights.is_cpu and not reached.all():
        ahead = gradient[:, reached].lerp(momentum[:, reached], _MOMENTUM)
        weights[:, reached] -= lr * step * _orthogonal_taps(ahead)
    else:
        weights -= lr * step * _orthogonal_taps(gradient.lerp(momentum, _MOMENTUM))


def _orthogonal_taps(kernel: Tensor) -> Tensor:
    return orthogonal(kernel.flatten(1)).view(kernel.shape)


def orthogonal(matrix: Tensor) -> Tensor:
    """About U V^T of `matrix` = U S V^T: its large singular values become 0.68 to 1.21, their vectors stay.

    Newton-Schulz's rounds multiply the matrix by polynomials of its Gram matrix. They run on the Gram matrix of the
    shorter side alone, so that the longer side is touched twice and not eight times. Its square, which the first round
    needs anyway, bounds the largest singular value closely, so the others have less of a way to go than from the norm
    of the matrix, and four rounds do instead of five.

    Args:
        matrix: float32 (rows, columns).

    Returns:
        float32, the same shape; zeros for zeros. Singular values under 0.005 of the bound end under 0.68.
    """
    if matrix.shape[0] > matrix.shape[1]:
        return orthogonal(matrix.T).T
    tiny = torch.finfo(matrix.dtype).tiny
    gram = matrix @ matrix.T
    size = gram.diagonal().amax().clamp(min=tiny)  # first: float32 holds no fourth powers of small or large gradients
    gram = gram / size
    square = gram @ gram
    bound = square.norm().sqrt()  # the fourth root of the sum of S^8 is at least the largest S^2
    gram, square = gram / bound.clamp(min=tiny), square / (bound**2).clamp(min=tiny)
    a, b, c = _QUINTIC
    factor = b * gram + c * square
    factor.diagonal().add_(a)
    product = factor
    for _ in range(_ROUNDS - 1):
        gram = factor @ gram @ factor
        factor = torch.addmm(gram, gram, gram, beta=b, alpha=c)
        factor.diagonal().add_(a)
        product = factor @ product
    return product @ (matrix / (size * bound).sqrt().clamp(min=tiny))
