"""Retraining: from a window of time to a model that may be deployed, or a reason why not.

A workload (flights, say) supplies what is particular to it: see `workload`. Everything else is here and knows no model:
`settings` and `run` are what a run works with, `steps/` are its steps, `gate/` decides, `card` tells, `execution` puts
them in a row. May import glowplug's features, drift, registry, operators, spec, wire and errors; only the command line
of glowplug imports this.
"""
