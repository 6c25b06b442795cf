"""Third-party prompt expanders as refiners: causal and sequence-to-sequence language models, and chat endpoints."""
