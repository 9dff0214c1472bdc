"""The text encoder: prompts with open slots, contexts by stage."""
