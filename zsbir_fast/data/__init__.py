"""Images and class names: splits, file lists, benchmarks on disk, transforms and batch samplers.

Code that reads or draws sketches and photos belongs here; code that turns class names into vectors
belongs to ``zsbir_fast.text``. The real benchmark, the ImageNet weights and the class vectors that
ship with the package lie in ``bundled/``.
"""
