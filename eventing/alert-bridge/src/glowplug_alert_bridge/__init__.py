"""Alertmanager's webhook in, one CloudEvent for each alert that fires out."""
