"""Training losses as modules: they combine the operators into the loss of a method."""
