"""The dead-letter sink: keeps the events that nobody took, as many as fit, and shows them."""
