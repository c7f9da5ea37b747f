"""The notebooks that `mlipkit lab` copies to a user's folder."""
