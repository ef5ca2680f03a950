"""The experiment's configuration: schema, names of runs, checks of words."""
