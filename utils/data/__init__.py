"""Files to pixels and prompts."""
