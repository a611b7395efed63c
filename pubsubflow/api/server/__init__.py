"""The HTTP server around the handlers: connections, limits, back-pressure, TLS, metrics."""
