"""For tests, shipped: one contract suite an interface, doubles in memory, starters of the real things."""
