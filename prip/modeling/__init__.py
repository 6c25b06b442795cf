"""The networks of a refiner: preference encoder, prompt decoder, and the model that joins them."""

from ..errors import broken_packages

with broken_packages():
    from .preference_encoder import PreferenceEncoder, PreferenceEncoderConfig
    from .prip_model import PripConfig, PripModel
    from .prompt_decoder import PromptDecoder, PromptDecoderConfig, PromptDecoderOutput

__all__ = [
    "PreferenceEncoder",
    "PreferenceEncoderConfig",
    "PripConfig",
    "PripModel",
    "PromptDecoder",
    "PromptDecoderConfig",
    "PromptDecoderOutput",
]
