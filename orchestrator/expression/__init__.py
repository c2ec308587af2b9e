"""The pure expression core: events and a time in, weights and facial controls out.

Nothing here reads a clock, does I/O or knows an event loop.
"""
