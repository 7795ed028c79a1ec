"""The `glowplug` command: one module a verb, results on stdout, everything else on stderr.

Each verb imports what it needs when it runs, so that `--help` and the light verbs start at once.
"""
