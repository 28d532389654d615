"""Muon (Jordan et al. 2024, https://kellerjordan.github.io/posts/muon/): momentum whose direction
is made orthogonal.

`torch.optim.Muon` does the same one matrix at a time and in bfloat16, which a processor without
instructions for it does sixty times as slowly as float32. Here matrices of one shape go together,
and in float32 where there is no GPU.
"""

from __future__ import annotations

import math
from collections import defaultdict
from collections.abc import Iterable

import torch

# of the polynomial that is iterated (Jordan): singular values end between .7 and 1.2
COEFFICIENTS = (3.4445, -4.7750, 2.0315)
ITERATIONS = 5
MOMENTUM = 0.95


class Muon(torch.optim.Optimizer):
    """For matrices (rows, columns). A step has the size of AdamW's: .2 a weight, root mean square
    (Liu et al., arXiv 2502.16982).
    """

    def __init__(self, matrices: Iterable[torch.nn.Parameter], lr: float, weight_decay: float):
        super().__init__(matrices, {"lr": lr, "weight_decay": weight_decay})

    @torch.no_grad()
    def step(self) -> None:
        for group in self.param_groups:
            alike = defaultdict(list)
            for matrix in group["params"]:
                alike[matrix.shape].append(matrix)
            for shape, several in alike.items():
                moved = orthogonal(torch.stack([self._direction(one) for one in several]))
                size = group["lr"] * 0.2 * math.sqrt(max(shape))
                for matrix, step in zip(several, moved, strict=True):
                    matrix.mul_(1 - group["lr"] * group["weight_decay"])
                    matrix.add_(step, alpha=-size)

    def _direction(self, matrix: torch.nn.Parameter) -> torch.Tensor:
        """The gradient and its momentum, as Nesterov takes them together."""
        state = self.state[matrix]
        if "momentum_buffer" not in state:
            state["momentum_buffer"] = torch.zeros_like(matrix)
        kept = state["momentum_buffer"].lerp_(matrix.grad, 1 - MOMENTUM)
        return matrix.grad.lerp(kept, MOMENTUM)


def orthogonal(matrices: torch.Tensor) -> torch.Tensor:
    """`matrices` (n, rows, columns) with their singular values near 1, by iterations of Newton
    and Schulz.
    """
    tall = matrices.shape[1] > matrices.shape[2]
    x = matrices.to(torch.bfloat16 if matrices.is_cuda else torch.float32)
    x = x.mT if tall else x
    x = x / x.norm(dim=(1, 2), keepdim=True).clamp(min=1e-7)
    a, b, c = COEFFICIENTS
    for _ in range(ITERATIONS):
        square = x @ x.mT
        x = torch.baddbmm(x, torch.baddbmm(square, square, square, beta=b, alpha=c), x, beta=a)
    return (x.mT if tall else x).to(matrices.dtype)
