"""The memory tier: what outlives a run. Sessions, items and recall come with their own migrations; none is here yet."""
