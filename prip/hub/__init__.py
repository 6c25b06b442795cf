"""The Hugging Face Hub: verified downloads and pickle-free uploads of checkpoints."""
