"""What moves weights: AdamW; or Muon for the matrices inside, and AdamW for the rest.

Of embeddings and heads the rows are words, to which what Muon does to a matrix does not apply. Its
step has the size of AdamW's, so that one learning rate serves both.
"""

from __future__ import annotations

from itertools import chain

import torch

from pretune.models.muon import Muon
from pretune.recipes.optimisation import Optimisation


class Optimizers:
    """One or two optimizers that together move all weights of a model that are trained."""

    def __init__(self, model: torch.nn.Module, settings: Optimisation):
        trained = [weight for weight in model.parameters() if weight.requires_grad]
        ours = {weight for weight in trained if weight.ndim == 2} - _of_words(model)
        ours = ours if settings.optimizer == "muon" else set()
        same = {"lr": settings.learning_rate, "weight_decay": settings.weight_decay}
        self._several: list[torch.optim.Optimizer] = []
        if rest := [weight for weight in trained if weight not in ours]:
            adamw = torch.optim.AdamW(rest, betas=settings.betas, fused=True, **same)
            self._several.append(adamw)
        if matrices := [weight for weight in trained if weight in ours]:
            self._several.append(Muon(matrices, **same))
        self._clip = settings.clip

    def step(self, rate: float) -> None:
        """Move the weights at a learning rate, by gradients whose common norm is clipped."""
        if self._clip is not None:
            weights = chain.from_iterable(map(_weights, self._several))
            torch.nn.utils.clip_grad_norm_(list(weights), self._clip)
        for one in self._several:
            for group in one.param_groups:
                group["lr"] = rate
            one.step()
            one.zero_grad()

    def moments(self, weight: torch.nn.Parameter) -> dict[str, torch.Tensor]:
        """What is kept of a weight's gradients, by name: the very tensors in use."""
        owner = next(one for one in self._several if weight in set(_weights(one)))
        return owner.state[weight]


def _weights(optimizer: torch.optim.Optimizer) -> list[torch.nn.Parameter]:
    return optimizer.param_groups[0]["params"]


def _of_words(model: torch.nn.Module) -> set[torch.nn.Parameter]:
    """The weights of which each row is a word: embedding and head."""
    ends = (model.get_input_embeddings(), model.get_output_embeddings())
    return {end.weight for end in ends if end is not None}
