"""Tools of the project itself: rules of language, drawings, the docs site."""
