"""PRIP as a custom node for ComfyUI, which loads this folder from its custom_nodes (docs/comfyui.md)."""

from .node import RefinePrompt

NODE_CLASS_MAPPINGS = {"PripRefinePrompt": RefinePrompt}
NODE_DISPLAY_NAME_MAPPINGS = {"PripRefinePrompt": "Refine Prompt (PRIP)"}
WEB_DIRECTORY = "./web"

__all__ = ["NODE_CLASS_MAPPINGS", "NODE_DISPLAY_NAME_MAPPINGS", "WEB_DIRECTORY"]
