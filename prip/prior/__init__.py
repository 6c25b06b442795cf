"""What users of text-to-image systems add to their prompts: concepts, a prior fitted on real prompts, and its rules."""
