"""Read models of the API and of other services, one module a subject."""
