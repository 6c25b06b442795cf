"""What a stage does to need less memory."""

from __future__ import annotations

from transformers import PreTrainedModel


def checkpoint_activations(model: PreTrainedModel) -> None:
    """Makes the layers of `model` forget their activations in training and compute them again for the gradient.

    transformers does so in training mode alone.
    """
    how = {"use_reentrant": False}
    if hasattr(model, "activation_checkpointing_enable"):  # transformers 5.23 or newer, where the other name warns
        model.activation_checkpointing_enable(activation_checkpointing_kwargs=how)
    else:
        model.gradient_checkpointing_enable(gradient_checkpointing_kwargs=how)
