"""The model registry: MLflow's versions and aliases ↔ directories and storage URIs. MLflow is imported here only."""
