"""A predictor that is a Triton: `python -m glowplug_triton --model_name=resnet50 --model_dir=/mnt/models`."""
