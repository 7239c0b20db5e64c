"""Training losses as modules: they combine the operators into what a method optimises."""
