"""Connections at rest: the keyring, encryption, and their rows."""
