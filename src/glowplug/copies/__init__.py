"""Copies of requests and their answers, which Envoy streams to processes of their own.

Who wants them, and what for, is not known here.

`child` keeps such a process running, beside the machine; `listening` is what that process does; `copies` takes Envoy's
streams apart. The shadow and the payload logger have one process each, so that none holds up the other.
"""
