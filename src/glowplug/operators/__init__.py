"""What our controllers share, wherever they run: the Kubernetes API, the lease that says who acts, events.

They run against the local machine and against a cluster alike, and know neither.
"""
