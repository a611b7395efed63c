"""Manifests of DAGs folders: written once, elsewhere, so that a start need not import the files."""
