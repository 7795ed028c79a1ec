"""glowplug: serverless machine-learning serving that never starts cold.

The package holds the local machine, which runs KServe InferenceServices on one computer, and the in-pod serving
library. Nothing is imported here, so that a unit which needs `glowplug.serving` alone pays for that alone.
"""

__version__ = "0.1.0"
