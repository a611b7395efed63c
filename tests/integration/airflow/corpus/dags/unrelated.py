raise RuntimeError("safe mode leaves it out")
