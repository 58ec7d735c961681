"""A past range of a model's log folded again, also under another policy. Touches no live topic."""
