"""HTTP requests and responses: routing, parsing, problems, pagination, ETags, OpenAPI."""
