"""The local machine: where the engines meet.

It owns the data directory, the order in which parts start and stop, and the wiring between them; no part knows
another.
"""
