"""Tools of the Model Context Protocol over the HTTP API of a daemon."""
