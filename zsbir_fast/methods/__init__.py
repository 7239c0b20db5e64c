"""The published methods: what each must say (``contract``), their names, saving and loading.

Nothing here trains or ranks: ``training`` runs the loop, ``ranking`` orders photos.
"""
