"""How a registered version comes to serve: written into the InferenceService, or into its manifest's repository."""
