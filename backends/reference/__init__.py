"""The reference engine: templates evaluated in plain Python. It defines what every other engine must do."""
