"""Canaries that judge themselves: the steps of `canaryTrafficPercent`, the judge, and the controller that runs both.

Runs against the local machine and against a cluster alike.
"""
