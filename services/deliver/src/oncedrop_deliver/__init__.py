"""oncedrop deliver: claim, serve, delete."""
