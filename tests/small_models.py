"""Untrained models of other families, small enough for a test, with weights that are widened so
that their outputs differ.
"""

import torch
from transformers import AutoConfig, AutoModelForCausalLM

SMALL = {
    "hidden_size": 32,
    "num_hidden_layers": 4,
    "num_attention_heads": 4,
    "intermediate_size": 64,
    "vocab_size": 512,
    "max_position_embeddings": 512,
    "pad_token_id": 1,
    "eos_token_id": 0,
    "bos_token_id": None,
}
# Olmo 3 attends to a window in three of four layers, SmolLM3 leaves positions out in one; Falcon
# shares no prefix
FAMILIES = {
    "olmo2": {"num_key_value_heads": 2},
    "olmo3": {"sliding_window": 24, "num_key_value_heads": 4},
    "gpt_neox": {},
    "smollm3": {"num_key_value_heads": 2},
    "llama": {"num_key_value_heads": 2},
    "gpt2": {},
    "opt": {},
    "falcon": {},
}


def small(family: str, **changes):
    """An untrained model of `family`, in evaluation mode; `changes` are settings of its
    configuration.
    """
    torch.manual_seed(0)
    model = AutoModelForCausalLM.from_config(
        AutoConfig.for_model(family, **(SMALL | FAMILIES.get(family, {}) | changes))
    ).eval()
    with torch.no_grad():
        for weight in model.parameters():
            weight.mul_(4)
    return model
