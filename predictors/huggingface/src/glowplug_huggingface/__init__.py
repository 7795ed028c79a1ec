"""A predictor for Hugging Face text models: `python -m glowplug_huggingface --model_name=m --model_dir=/mnt/models`."""
