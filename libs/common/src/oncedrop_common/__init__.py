"""What the three oncedrop services share."""
