"""Signing in by OpenID Connect: authorisation code with PKCE, at a provider of the installation."""
