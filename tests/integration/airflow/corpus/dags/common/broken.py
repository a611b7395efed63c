"""A module of the team's that fails; without the word that safe mode looks for."""
value = {}["key"]
