"""Knative Serving's control loops: Service, Configuration, Revision (with its pods and PodAutoscaler), Route."""
