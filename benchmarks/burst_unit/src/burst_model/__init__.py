"""A model that takes its time and no CPU."""
