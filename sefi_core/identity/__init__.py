"""An identity: the value, groups, edits, and its file."""
