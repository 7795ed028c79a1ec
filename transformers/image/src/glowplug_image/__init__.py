"""A transformer for images: `python -m glowplug_image --model_name=photos --predictor_host=localhost:8081`."""
