ENTRANCES: dict = {}
