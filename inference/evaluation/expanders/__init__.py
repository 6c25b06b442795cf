"""Prompt expanders of others as refiners: causal and sequence-to-sequence language models, and chat endpoints."""
