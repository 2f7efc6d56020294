"""oncedrop janitor: sweeps, and says how things are."""
