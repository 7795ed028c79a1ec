"""The Kubernetes API of the local machine: store, watch, admission, patches, tables, discovery, HTTPS.

`server.ApiServer` puts the parts together; `objects.Objects` is the same API for code in this process. Everything
runs on one event loop's thread, and a write is durable when the call that made it returns. The package knows
nothing of what the kinds mean: that is the controllers' part.
"""
