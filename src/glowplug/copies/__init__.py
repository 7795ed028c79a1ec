"""Copies of requests and their answers, for processes of their own; our servers make them, and Envoy for all others.

Who wants them, and what for, is not known here.

`copy.lua` (`script`) is what Envoy runs to copy, `encoding` what a server of ours does; `settings` says what is to be
copied, `frames` is what both write to a socket, `reading` reads the sockets, `copies` puts requests and answers
together. `child` keeps such a process running, beside the machine; `listening` is
what that process does. The shadow and the payload logger have one process each, so that none holds up the other.
"""
