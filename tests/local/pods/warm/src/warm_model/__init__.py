"""A unit for the warm pool's stress test."""
