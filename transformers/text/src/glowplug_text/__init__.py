"""A transformer for texts: `python -m glowplug_text --model_dir=/mnt/models --predictor_host=localhost:8081`."""
