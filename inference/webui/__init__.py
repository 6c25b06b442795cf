"""PRIP as an extension for the webui of A1111 and Forge, which loads scripts/ of this folder (docs/webui.md)."""
