"""The inference protocols, bytes <-> values: V1, V2 (JSON, binary tensors, gRPC) and CloudEvents over HTTP.

Pure: nothing here does I/O, reads a clock or holds state. Sizes are checked before anything is allocated, and every
malformed input is an InferenceError (400) that names the tensor, what was found and what was expected, and never
repeats the input.
"""

from glowplug.wire.tensors import InferRequest, InferResponse, Parameter, Parameters, RequestedOutput, Tensor

__all__ = ["InferRequest", "InferResponse", "Parameter", "Parameters", "RequestedOutput", "Tensor"]
