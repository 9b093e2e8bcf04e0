"""The publish stage: a finished run's W&B files are sent, checked on arrival, and shown in a W&B Report."""
