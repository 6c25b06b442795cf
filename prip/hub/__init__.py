"""The Hugging Face Hub: checkpoints come from it whole and verified, and go to it without a pickle."""
