"""``edgevid tune``: how many flips each way of smoothing takes away, and what it costs in delay."""
