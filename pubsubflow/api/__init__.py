"""HTTP: events in, answers out. The only package that serves with aiohttp."""
