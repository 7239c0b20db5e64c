"""The published methods: the contract of each, their names, saving and loading.

Nothing here trains or ranks: ``training`` runs the loop, ``ranking`` orders photos.
"""
