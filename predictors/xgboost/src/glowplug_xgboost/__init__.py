"""A predictor for XGBoost models: `python -m glowplug_xgboost --model_name=flights --model_dir=/mnt/models`."""
