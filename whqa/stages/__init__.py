"""The two stages of an experiment: made from a configuration (`from_config`), run as objects (`running`)."""
