"""PRIP as an extension of A1111's and Forge's webui, which load scripts/ of this folder (docs/webui.md)."""
