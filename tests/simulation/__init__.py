"""Seeded simulation: the real reconcilers and decisions in a simulated world.

The API server, its watches, the clock, the runners and the users are simulated; a seed decides what happens and in
which order, crashes, lost and late events and paused predecessors included. A failure prints its seed.
"""
