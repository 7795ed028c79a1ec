"""Open-loop load on one InferenceService: profiles, locust users, figures and the report.

Values and decisions are importable anywhere. What imports locust (`shapes`, `users`, `worker`) patches the standard
library for gevent and belongs in a process of its own: `run.run` starts it.
"""
