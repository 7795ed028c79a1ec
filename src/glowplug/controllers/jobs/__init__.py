"""The control loop of Jobs: pods that run to their end, as many as are wanted, again where they fail."""
