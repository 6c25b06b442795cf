"""`prip-train prior`: fit what users add to their prompts, from files of real prompts."""
