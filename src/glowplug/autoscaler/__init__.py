"""Knative's autoscaler: what a revision's measurements mean for its number of pods. Decisions only, no I/O."""
