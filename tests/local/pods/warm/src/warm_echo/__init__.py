"""A unit for the warm pool's tests: an HTTP server that says what its process looks like."""
