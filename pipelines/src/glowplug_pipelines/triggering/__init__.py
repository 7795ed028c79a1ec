"""What starts a retraining run: which event is answered by a run, when, and by whom; one run at a time a model."""
