"""Connections with encrypted secrets: the keyring, the encryption, the rows."""
