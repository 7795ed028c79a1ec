"""KServe's control loop for InferenceServices in Knative mode."""
