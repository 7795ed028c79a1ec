"""What our controllers share, wherever they run: the API, the lease that says who acts, events, a webhook.

They run against the local machine and against a cluster alike, and know neither.
"""
