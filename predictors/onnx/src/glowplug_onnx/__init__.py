"""A predictor for ONNX models: `python -m glowplug_onnx --model_name=resnet50 --model_dir=/mnt/models`."""
