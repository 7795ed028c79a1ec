"""Copies of requests and their answers, which Envoy makes for processes of their own.

Who wants them, and what for, is not known here.

`copy.lua` (`script`) is what Envoy runs to copy; `frames` is what it writes to a socket, `reading` reads the sockets,
`copies` puts requests and answers together. `child` keeps such a process running, beside the machine; `listening` is
what that process does. The shadow and the payload logger have one process each, so that none holds up the other.
"""
