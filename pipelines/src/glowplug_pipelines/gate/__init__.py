"""May the challenger be deployed? Decisions only: no file, no clock, no model.

`evidence` is what was seen, `bootstrap` how sure one can be of a mean, `checks` a decision each, `verdict` all of them.
"""
