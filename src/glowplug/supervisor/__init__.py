"""The kubelet of the local machine: it runs pods as processes.

Owns the *actual* processes of the machine: their ports, environment, files, logs, probes and restarts, and the status
of every pod. It decides nothing about how many pods there are, and never routes a request. `agent.Supervisor` is what
the machine starts; nothing is imported here, so that a child process which needs one module pays for that one.
"""
