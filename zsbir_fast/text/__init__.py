"""Class names as vectors: prompts, descriptions, and the text features that models are given.

Code that turns a class name into words or vectors belongs here. Only seen classes are ever
described to a model: at inference there is no text.
"""
